"""The arrays of a model outside of its module, for steps that are pure functions.

A broadcast is loaded once for all clients that received it; only what a site keeps for itself
(``local/<array>``) is loaded for that site.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from fedalt.alternation.local import LOCAL_STATE
from fedalt.clients.kernels.base import Order
from fedalt.clients.kernels.client import Client, received_loss
from fedalt.clients.kernels.model import ReusedModel
from fedalt.clients.kernels.pure import PureStep, hypers_of
from fedalt.clients.kernels.stages import Stage, spec_of

Named = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Held:
    """What an order's clients begin with: arrays they share, and each one's own in place of them.

    Parameters go by the first of their names; buffers are all there, persistent or not.
    """

    shared: Named
    own: Sequence[Named]

    @property
    def apart(self) -> frozenset[str]:
        """The names of arrays that some client has for its own."""
        return frozenset(name for arrays in self.own for name in arrays)


def load(model: ReusedModel, order: Order, clients: Sequence[Client]) -> Held:
    """Read what each client begins with; raises :class:`ConfigError` as the reference does."""
    kept = [
        {
            n
            for n in model.names
            if n not in order.arrays and f"{LOCAL_STATE}{n}" in client.site.state
        }
        for client in clients
    ]
    # What every client has for its own need not be among the initial arrays; what one lacks must.
    common = {f"{LOCAL_STATE}{name}" for name in set.intersection(*kept)}
    first = clients[0].site
    state = {key: first.state[key] for key in common}
    model.load(order, replace(first, state=state))
    shared = {name: model.tensor(name).clone() for name in model.distinct}
    own: list[Named] = []
    for client, names in zip(clients, kept, strict=True):
        if names:
            model.load(order, client.site)
        own.append({model.first[n]: model.tensor(n).clone() for n in sorted(names)})
    return Held(shared, own)


def pure_step(model: ReusedModel, stage: Stage, weighted: bool) -> PureStep:
    """Return a stage's step. With weights, buffers are read only."""
    trained = tuple(model.choose(stage.arrays))
    buffers = () if weighted else tuple(name for name in model.distinct if model.is_buffer(name))
    rest = (name for name in model.distinct if name not in {*trained, *buffers})
    private = spec_of(stage.phase) is not None
    return PureStep(model, stage.settings, trained, buffers, tuple(rest), weighted, private)


def hyper_tensors(step: PureStep, like: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the step's hyper-parameters as tensors of no dimensions."""
    kind = like.dtype if like.is_floating_point() else torch.float32
    return tuple(
        torch.tensor(value, dtype=kind, device=like.device)
        for value in hypers_of(step.settings).values()
    )


def as_received(order: Order, name: str, values: np.ndarray) -> np.ndarray:
    """Return an array in the type in which it was received."""
    sent: Mapping[str, np.ndarray] = order.arrays
    return values.astype(sent[name].dtype, copy=False) if name in sent else values


def initial_loss(model: ReusedModel, order: Order, client: Client) -> dict[str, float]:
    """Return ``train_loss``, that of the received model, where the phase asks for it."""
    if not client.stages[0].settings.report_initial_loss:
        return {}
    model.load(order, client.site)
    return received_loss(model, client)

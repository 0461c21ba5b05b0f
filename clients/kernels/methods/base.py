"""What a method against forgetting is given, and where it takes part in a stage's steps.

A method is a function from a :class:`Scene` to :class:`Hooks`. It is called before any step,
when the model is as received, and leaves entries for the client's state when the stage is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from fedalt.clients.kernels.client import Client
from fedalt.clients.kernels.evaluate import Batch, checked
from fedalt.clients.kernels.methods.settings import MethodSettings
from fedalt.clients.kernels.model import ReusedModel
from fedalt.clients.kernels.optim import read_kept
from fedalt.clients.kernels.stages import Stage
from fedalt.clients.kernels.steps import Gradient, Transform, Update
from fedalt.clients.kernels.streamed import Streamed, batch_of
from fedalt.seeds import Seeds

Named = dict[str, torch.Tensor]
Entries = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Hooks:
    """A method's part in a stage; what it has none of is None.

    ``wrap`` puts something around the gradient of a batch, ``transform`` changes a gradient
    once it is there, ``around`` goes around the update in place, ``leave`` gives entries for
    the client's state when the stage is done.
    """

    wrap: Callable[[Gradient], Gradient] | None = None
    transform: Transform | None = None
    around: Callable[[Update], Update] | None = None
    leave: Callable[[], Entries] = dict


@dataclass(frozen=True)
class Former:
    """An experience that has ended: its number, its task, and the rows that task has."""

    experience: int
    task: int
    rows: np.ndarray


@dataclass(frozen=True)
class Scene:
    """Where a client stands before a stage's first step.

    ``trained`` are the live parameters that the stage trains, still as received. ``former`` is
    the experience that ended with the last round, if one did: its model is the one received
    now. ``fresh`` says whether this is the stage's first round in its experience.
    """

    model: ReusedModel
    client: Client
    stage: Stage
    streamed: Streamed
    settings: MethodSettings
    trained: Mapping[str, torch.Tensor]
    former: Former | None
    fresh: bool

    def key(self, method: str, *parts: str) -> str:
        """Return the name of an entry in the client's state: each stage has its own."""
        return "/".join((method, self.stage.scope, *parts))

    def seeds(self, purpose: str) -> Seeds:
        """Return the seeds for one purpose in this round."""
        return self.stage.seeds.at("methods", purpose)

    def batch(self, rows: Mapping[int, np.ndarray]) -> Batch:
        """Return rows of several tasks on the model's device, task after task."""
        found = checked(batch_of(self.client.site, rows), self.model.device, self.client.where)
        return self.model.laid_out(found)

    def read(self, method: str, part: str) -> Named | None:
        """Return what an earlier round left for each trained array; None if it left nothing.

        An array that was not trained then has zeros. Raises :class:`ConfigError` for shapes
        that do not fit.
        """
        state, found = self.client.site.state, {}
        for name, param in self.trained.items():
            key = self.key(method, part, name)
            if key in state:
                found[name] = read_kept(key, state[key], param).to(param.device, param.dtype)
        if not found:
            return None
        return {n: found.get(n, torch.zeros_like(p)) for n, p in self.trained.items()}

    def entries(self, method: str, part: str, values: Mapping[str, torch.Tensor]) -> Entries:
        """Return values for each array as entries that :meth:`read` reads."""
        return {self.key(method, part, n): np.array(t.cpu().numpy()) for n, t in values.items()}

    def values(self) -> Named:
        """Return copies of the trained parameters as they are now."""
        return {name: param.detach().clone() for name, param in self.trained.items()}

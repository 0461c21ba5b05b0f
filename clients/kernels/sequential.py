"""One client after the other, in place: the reference that every other mode must agree with.

A step is the gradient of a batch, transforms of it and the optimiser's update (``steps.py``);
methods against forgetting take part in each of these (``methods/``). In a private stage the
gradient is one that hides each row (``dpsgd.py``).
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch

from fedalt.alternation.local import LOCAL_STATE
from fedalt.clients.kernels import optim
from fedalt.clients.kernels.base import Order, Work
from fedalt.clients.kernels.client import (
    ADVICE,
    Client,
    no_rows_for_batch_norm,
    received_loss,
)
from fedalt.clients.kernels.dpsgd import account_of, private_gradient, tells_metrics
from fedalt.clients.kernels.evaluate import (
    Averages,
    Batch,
    lent_randomness,
    mean_loss,
    take,
)
from fedalt.clients.kernels.methods.base import Hooks
from fedalt.clients.kernels.methods.begin import begin
from fedalt.clients.kernels.model import Place, ReusedModel
from fedalt.clients.kernels.row_gradients import UnfitError
from fedalt.clients.kernels.row_ways import Private, WayTable, begin_private
from fedalt.clients.kernels.stages import Stage, minibatches
from fedalt.clients.kernels.steps import (
    Gradient,
    Grads,
    Step,
    Transform,
    Update,
    clipping,
    make_step,
    mean_gradient,
    proximal,
)
from fedalt.errors import ConfigError, FedaltError
from fedalt.privacy.noise import noise_generator
from fedalt.seeds import Seeds


@dataclass
class _Run:
    """One client's work in progress: what all of its stages share."""

    model: ReusedModel
    data: Batch
    where: Place
    received: dict[str, torch.Tensor]
    kept: MutableMapping[str, np.ndarray]
    averages: Averages = field(default_factory=Averages)
    steps: int = 0

    def run(self, stage: Stage, hooks: Sequence[Hooks], private: Private | None) -> None:
        """Train one stage's arrays and leave all others as they were."""
        model, settings = self.model, stage.settings
        trained = model.choose(stage.arrays)
        params = list(trained.values())
        rule, names = settings.optimizer, list(trained)
        kept = self.kept if settings.persist else {}
        state = optim.restore(rule, names, params, kept, stage.scope)

        def update(grads: Grads) -> None:
            optim.update(rule, params, grads, state)

        still = [name for name in model.buffers if name not in stage.arrays]
        model.module.train()
        with (
            model.still(still),
            lent_randomness(_ambient(stage, private is not None), model.device),
            self._gradient(params, private) as gradient,
        ):
            step = self._step(stage, trained, gradient, update, hooks)
            for rows in minibatches(stage) if private is None else private.mechanism.batches():
                chosen = torch.from_numpy(rows).to(model.device)
                if private is None:
                    self._take(step, chosen)
                else:
                    self._take_private(step, chosen)
        self._check(params)
        if settings.persist:
            optim.keep(names, state, self.kept, stage.scope)
        for hook in hooks:
            self.kept.update(hook.leave())

    def _gradient(
        self, params: Sequence[torch.nn.Parameter], private: Private | None
    ) -> AbstractContextManager[Gradient]:
        if private is None:
            return nullcontext(mean_gradient(self.model, params))
        return private_gradient(private.mechanism, private.way, self.model, params)

    def _step(
        self,
        stage: Stage,
        trained: Mapping[str, torch.Tensor],
        gradient: Gradient,
        update: Update,
        hooks: Sequence[Hooks],
    ) -> Step:
        """Put a step together; what methods do to it comes in the order of the hooks."""
        params, settings = list(trained.values()), stage.settings
        transforms: list[Transform] = []
        if settings.proximal_mu:
            received = [self.received[name] for name in trained]
            transforms.append(proximal(params, received, settings.proximal_mu))
        transforms += [hook.transform for hook in hooks if hook.transform is not None]
        if settings.clip_norm:
            transforms.append(clipping(settings.clip_norm))
        for hook in hooks:
            gradient = gradient if hook.wrap is None else hook.wrap(gradient)
            update = update if hook.around is None else hook.around(update)
        return make_step(gradient, transforms, update)

    def _take(self, step: Step, rows: torch.Tensor) -> None:
        self.steps += 1
        try:
            loss, metrics = step(self.model.laid_out(take(self.data, rows)))
        except ConfigError as error:
            raise ConfigError(f"{self.where}: {error}") from error
        except ValueError as error:
            raise no_rows_for_batch_norm(error, self.where, self.steps, len(rows)) from error
        if not math.isfinite(loss):
            raise FedaltError(f"{self.where}, step {self.steps}: the loss is {loss}; {ADVICE}")
        self.averages.add({**metrics, "loss": loss}, len(rows))

    def _take_private(self, step: Step, rows: torch.Tensor) -> None:
        """Take a step of a private stage: no row can stop it, whatever its loss."""
        self.steps += 1
        try:
            loss, metrics = step(self.model.laid_out(take(self.data, rows)))
        except UnfitError as error:
            raise ConfigError(f"{self.where}, step {self.steps}: {error}") from error
        if math.isfinite(loss):
            self.averages.add({**metrics, "loss": loss}, len(rows))

    def means(self, client: Client) -> dict[str, float]:
        """Return the means over all rows trained on; where none was drawn, over all there are."""
        if not self.averages.means():
            loss, metrics = mean_loss(self.model, self.data, client.rows, client.site.seeds)
            return {**metrics, "loss": loss}
        return self.averages.means()

    def _check(self, params: Sequence[torch.Tensor]) -> None:
        # The last step's gradient has no later loss that would show it.
        ends = [end for p in params if p.numel() for end in torch.aminmax(p.detach())]
        if ends and not torch.stack(ends).isfinite().all():
            raise FedaltError(
                f"{self.where}, step {self.steps}: a parameter is not finite; {ADVICE}"
            )


def _ambient(stage: Stage, private: bool) -> Seeds:
    """Return what torch's own draws, such as dropout's, come from.

    A private stage's are secret: with masks that anyone can draw again, one row more would move
    the masks, and so the gradients, of all rows behind it.
    """
    spec = stage.phase.privacy
    if not private or spec is None:
        return stage.seeds
    drawn = noise_generator(spec.rng, stage.seeds.at("ambient")).integers(2**62)
    return Seeds(int(drawn))


def run_sequential(
    model: ReusedModel, order: Order, client: Client, ways: WayTable | None = None
) -> Work:
    """Train one client on the model in place; ``client.site.state`` changes only at the end.

    ``ways`` says how private stages have the gradients of single rows, and is added to.
    """
    model.load(order, client.site)
    open_to_all = tells_metrics(client.stages)
    extra = received_loss(model, client) if open_to_all else {}
    received: dict[str, torch.Tensor] = {}
    if any(stage.settings.proximal_mu for stage in client.stages):
        received = {name: model.tensor(name).clone() for name in order.trained}
    pending: dict[str, np.ndarray] = {}
    kept = ChainMap(pending, client.site.state)
    run = _Run(model, client.data, client.where, received, kept)
    private = begin_private(model, client, WayTable() if ways is None else ways)
    for stage, hooks, own in zip(client.stages, begin(model, client), private, strict=True):
        run.run(stage, hooks, own)
    arrays = {
        name: model.read(name, order.arrays[name].dtype if name in order.arrays else None)
        for name in order.returns
    }
    metrics = {**run.means(client), **extra} if open_to_all else {}
    mechanisms = [own.mechanism for own in private if own is not None]
    client.keep(
        pending
        | {f"{LOCAL_STATE}{name}": model.read(name) for name in order.keeps}
        | account_of(client.site, mechanisms)
    )
    applied = tuple(mechanism.applied for mechanism in mechanisms)
    return Work(arrays, len(client.rows), metrics, run.steps, applied)

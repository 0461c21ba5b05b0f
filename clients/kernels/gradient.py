"""Local training by gradients: one loop for every task with a model and a loss.

A client k receives w⁰, runs E epochs (or so many steps) of minibatches B over its rows and
returns the trained blocks; McMahan et al. 2017 ("Communication-efficient learning of deep
networks from decentralized data"), with the proximal term of Li et al. 2020 ("Federated
optimization in heterogeneous networks"):

    h(w; B) = 1/|B| · Σ_{x∈B} ℓ(w; x) + μ/2 · ‖w − w⁰‖²,      w ← update(w, clip(∇h(w; B)))

A step is put together from three parts, each of which may be another: the gradient of a
batch, transforms of that gradient (proximal pull, clipping), and the optimiser's update.
Only the order's ``returns`` are trained. Buffers outside of them, such as running
statistics, end as they began; a module that holds them still normalises by its batch.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from fedalt.alternation.block import BlockMap
from fedalt.alternation.phase import Phase
from fedalt.clients.kernels import optim
from fedalt.clients.kernels.base import Order, SiteContext, Work
from fedalt.clients.kernels.evaluate import (
    Averages,
    Batch,
    checked,
    lent_randomness,
    mean_loss,
    take,
    viewed,
)
from fedalt.clients.kernels.model import ModelCache, Place, ReusedModel
from fedalt.errors import ConfigError, DataError, FedaltError, ScheduleError, nearest
from fedalt.seeds import Seeds

KEYS = (*optim.KEYS, "clip_norm", "proximal_mu", "optimizer_state", "report_initial_loss")
"""What a phase's ``params`` may hold for this kernel."""

_ADVICE = "lower params.lr, set params.clip_norm, or look at the site's data"

Grads = Sequence[torch.Tensor | None]
Gradient = Callable[[Batch], tuple[float, dict[str, float], Grads]]
"""A batch to its mean loss, the task's metrics and one gradient a trained parameter."""
Transform = Callable[[Grads], Grads]
Step = Callable[[Batch], tuple[float, dict[str, float]]]
"""Train on one batch in place; return its mean loss (without proximal term) and metrics."""


@dataclass(frozen=True)
class LocalSettings:
    """The hyper-parameters of one phase, read and checked. ``clip_norm`` 0 does not clip."""

    optimizer: optim.Optimizer
    clip_norm: float
    proximal_mu: float
    persist: bool
    report_initial_loss: bool

    @classmethod
    def read(cls, phase: Phase, order: Order) -> LocalSettings:
        """Read ``phase.params``; μ may also come from the strategy as ``proximal-mu``.

        Raises :class:`ConfigError` naming the phase and the key.
        """
        try:
            for key in phase.params:
                if key not in KEYS:
                    raise ConfigError(f"unknown params.{key}{nearest(key, KEYS)}")
            sent = optim.number(order.extras, "proximal-mu", 0.0)
            values = {
                "clip_norm": optim.number(phase.params, "clip_norm", 0.0),
                "proximal_mu": optim.number(phase.params, "proximal_mu", sent),
            }
            for key, value in values.items():
                if value < 0.0:
                    raise ConfigError(f"params.{key} is {value}, but must be at least 0")
            kept = phase.params.get("optimizer_state", "reset")
            if kept not in ("reset", "persist"):
                raise ConfigError(f"params.optimizer_state is {kept!r}, but knows reset, persist")
            return cls(
                optimizer=optim.Optimizer.read(phase.params),
                persist=kept == "persist",
                report_initial_loss=optim.flag(phase.params, "report_initial_loss"),
                **values,
            )
        except ConfigError as error:
            raise ConfigError(f"phase '{phase.name}': {error}") from error


@dataclass(frozen=True)
class Stage:
    """A phase without inner phases, ready to run: one stretch of the client's work.

    ``arrays`` are trained, ``rows`` seen; ``scope`` names its optimiser state at the site.
    """

    phase: Phase
    settings: LocalSettings
    arrays: tuple[str, ...]
    rows: np.ndarray
    seeds: Seeds
    scope: str


def stages(
    phase: Phase, order: Order, blocks: BlockMap, rows: np.ndarray, seeds: Seeds, scope: str
) -> Iterator[Stage]:
    """Unfold a phase, already restricted to its view's ``rows``, into its stages in order.

    An inner phase sees a view of the outer's rows, draws from the seeds at
    ``("inner", position, name)`` and takes the outer's params where it sets none itself.
    """
    settings = LocalSettings.read(phase, order)
    if not phase.inner:
        if phase.epochs == 0 and phase.steps == 0:
            raise ConfigError(f"phase '{phase.name}': epochs and steps are 0, nothing to train")
        arrays = order.returns
        if phase is not order.phase:
            arrays = blocks.select(phase.train, f"inner phase '{phase.name}'")
        if not set(arrays) <= set(order.returns):
            raise ScheduleError(
                f"inner phase '{phase.name}' trains {sorted(set(arrays) - set(order.returns))}, "
                f"which phase '{order.phase.name}' does not return: add its block to train"
            )
        yield Stage(phase, settings, arrays, rows, seeds, scope)
    for position, inner in enumerate(phase.inner):
        place = seeds.at("inner", position, inner.name)
        yield from stages(
            inner.with_params(**{**phase.params, **inner.params}),
            order,
            blocks,
            viewed(rows, inner.view.fraction, place),
            place,
            f"{scope}>{inner.name}",
        )


def minibatches(stage: Stage, device: torch.device) -> Iterator[torch.Tensor]:
    """Yield row numbers: each epoch all rows, shuffled anew; the last batch may be short."""
    rng, phase, taken = stage.seeds.at("batches").numpy(), stage.phase, 0
    epoch = 0
    while taken < phase.steps if phase.steps else epoch < phase.epochs:
        shuffled = torch.from_numpy(rng.permutation(stage.rows)).to(device)
        for part in torch.split(shuffled, phase.batch_size):
            yield part
            taken += 1
            if taken == phase.steps:
                return
        epoch += 1


def proximal(
    params: Sequence[torch.Tensor], received: Sequence[torch.Tensor], mu: float
) -> Transform:
    """Add the gradient of μ/2·‖w − w⁰‖², which is μ·(w − w⁰)."""

    def add(grads: Grads) -> Grads:
        drift = torch._foreach_sub(list(params), list(received))
        # A parameter outside of the loss is still pulled back to w⁰.
        pairs = zip(grads, drift, strict=True)
        present = [torch.zeros_like(d) if g is None else g for g, d in pairs]
        return torch._foreach_add(present, drift, alpha=mu)

    return add


def clipping(max_norm: float) -> Transform:
    """Scale the gradient so that its global norm is at most ``max_norm``."""

    def clip(grads: Grads) -> Grads:
        present = [grad for grad in grads if grad is not None]
        norm = torch.nn.utils.get_total_norm(present)
        scale = torch.clamp(max_norm / (norm + 1e-6), max=1.0)
        # Not in place: autograd may hand out one tensor as the gradient of two parameters.
        scaled = iter(torch._foreach_mul(present, scale))
        return [None if grad is None else next(scaled) for grad in grads]

    return clip


def mean_gradient(model: ReusedModel, params: Sequence[torch.Tensor]) -> Gradient:
    """Return the gradient of the batch's mean loss; none where there is nothing to follow."""

    def gradient(batch: Batch) -> tuple[float, dict[str, float], Grads]:
        loss, metrics = model.task.loss(model.module, batch)
        value = loss.item()
        # A block of buffers alone learns by the forward pass.
        if not params or not math.isfinite(value):
            return value, metrics, ()
        if not loss.requires_grad:
            raise ConfigError("the task's loss depends on none of the trained arrays")
        return value, metrics, torch.autograd.grad(loss, params, allow_unused=True)

    return gradient


def make_step(
    gradient: Gradient, transforms: Sequence[Transform], update: Callable[[Grads], None]
) -> Step:
    """Compose a step: the batch's gradient, its transforms in order, the update in place."""

    def step(batch: Batch) -> tuple[float, dict[str, float]]:
        loss, metrics, grads = gradient(batch)
        if grads:
            with torch.no_grad():
                for transform in transforms:
                    grads = transform(grads)
                update(grads)
        return loss, metrics

    return step


@dataclass
class _Client:
    """One client's work in progress: what all of its stages share."""

    model: ReusedModel
    data: Batch
    where: Place
    received: dict[str, torch.Tensor]
    kept: MutableMapping[str, np.ndarray]
    averages: Averages = field(default_factory=Averages)
    steps: int = 0

    def run(self, stage: Stage) -> None:
        """Train one stage's arrays and leave all others as they were."""
        model, settings = self.model, stage.settings
        trained = self._choose(stage)
        params = list(trained.values())
        rule, names = settings.optimizer, list(trained)
        kept = self.kept if settings.persist else {}
        state = optim.restore(rule, names, params, kept, stage.scope)
        transforms: list[Transform] = []
        if settings.proximal_mu:
            received = [self.received[name] for name in names]
            transforms.append(proximal(params, received, settings.proximal_mu))
        if settings.clip_norm:
            transforms.append(clipping(settings.clip_norm))
        step = make_step(
            mean_gradient(model, params),
            transforms,
            lambda grads: optim.update(rule, params, grads, state),
        )
        still = [name for name in model.buffers if name not in stage.arrays]
        former = {name: model.tensor(name).clone() for name in still}
        model.module.train()
        with lent_randomness(stage.seeds, model.device):
            for rows in minibatches(stage, model.device):
                self._take(step, rows)
        self._check(params)
        for name, value in former.items():
            model.tensor(name).copy_(value)
        if settings.persist:
            optim.keep(names, state, self.kept, stage.scope)

    def _choose(self, stage: Stage) -> dict[str, torch.nn.Parameter]:
        """Let gradients flow to the stage's parameters only; tied names count once."""
        wanted = set(stage.arrays) & self.model.trainable
        chosen: dict[int, str] = {}
        for name, param in self.model.parameters.items():
            param.requires_grad_(False)
            if name in wanted:
                chosen.setdefault(id(param), name)
        trained = {name: self.model.parameters[name] for name in chosen.values()}
        for param in trained.values():
            param.requires_grad_(True)
        return trained

    def _take(self, step: Step, rows: torch.Tensor) -> None:
        self.steps += 1
        try:
            loss, metrics = step(take(self.data, rows))
        except ConfigError as error:
            raise ConfigError(f"{self.where}: {error}") from error
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise DataError(
                f"{self.where}, step {self.steps}: batch normalisation cannot learn from a batch "
                f"of {len(rows)} row; choose a batch_size that leaves no single row over, or give "
                "the site more rows"
            ) from error
        if not math.isfinite(loss):
            raise FedaltError(f"{self.where}, step {self.steps}: the loss is {loss}; {_ADVICE}")
        self.averages.add({**metrics, "loss": loss}, len(rows))

    def _check(self, params: Sequence[torch.Tensor]) -> None:
        # The last step's gradient has no later loss that would show it.
        ends = [end for p in params if p.numel() for end in torch.aminmax(p.detach())]
        if ends and not torch.stack(ends).isfinite().all():
            raise FedaltError(
                f"{self.where}, step {self.steps}: a parameter is not finite; {_ADVICE}"
            )


@dataclass(frozen=True)
class GradientKernel:
    """Train the order's ``returns`` on a site's data by minibatch gradients."""

    _models: ModelCache = field(default_factory=ModelCache, repr=False, compare=False)

    def check(self, phase: Phase) -> None:
        """Raise :class:`ConfigError` for params that no run of the phase could use."""
        LocalSettings.read(phase, Order("", 1, phase, {}, ()))

    def __call__(self, order: Order, site: SiteContext) -> Work:
        """Return the trained arrays, row count, ``loss`` and the task's metrics, and steps.

        ``loss`` is the mean over the rows as they were trained on. With
        ``report_initial_loss``, ``train_loss`` is the received model's loss on those rows.
        ``site.state`` changes only at the end. Raises :class:`ConfigError` for params,
        arrays or blocks that do not fit, :class:`DataError` for a site without rows and
        :class:`FedaltError` when the loss or a parameter is no longer finite.
        """
        model, where = self._models(site.task, order.device), Place(order, site)
        for name in order.returns:
            if name not in model.names:
                raise ConfigError(
                    f"{where}: asked to train '{name}'{nearest(name, model.names)}, "
                    "which the model has not"
                )
        model.check_ties(order.returns, where)
        data = checked(site.task.site_data(site.site), model.device, where)
        rows = viewed(np.arange(len(data[0])), order.phase.view.fraction, site.seeds)
        work = list(stages(order.phase, order, model.blocks, rows, site.seeds, order.phase.name))
        model.load(order, site)
        extra = {}
        if LocalSettings.read(order.phase, order).report_initial_loss:
            extra["train_loss"] = mean_loss(model, data, rows, site.seeds)[0]
        received: dict[str, torch.Tensor] = {}
        if any(stage.settings.proximal_mu for stage in work):
            received = {name: model.tensor(name).clone() for name in order.returns}
        pending: dict[str, np.ndarray] = {}
        client = _Client(model, data, where, received, ChainMap(pending, site.state))
        for stage in work:
            client.run(stage)
        arrays = {
            name: model.read(name, order.arrays[name].dtype if name in order.arrays else None)
            for name in order.returns
        }
        site.state.update(pending)
        return Work(arrays, len(rows), {**client.averages.means(), **extra}, client.steps)

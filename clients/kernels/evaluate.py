"""The model as a site received it, and its mean loss on the site's data.

For rows x₁ … xₙ of the site and the received weights w this kernel reports

    F(w) = 1/n · Σᵢ ℓ(w; xᵢ)

and the task's own metrics, in evaluation mode and without a gradient. Nothing is trained.
The gradient kernel stands on the same :class:`ReusedModel`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch

from fedalt.alternation.block import BlockMap
from fedalt.clients.kernels.base import Order, SiteContext, Work
from fedalt.errors import ConfigError, DataError, nearest
from fedalt.seeds import Seeds
from fedalt.task import GradientTask, Task

Batch = tuple[torch.Tensor, ...]
EVALUATION_BATCH = 512


class ReusedModel:
    """One torch module that serves client after client: each load overwrites all of it.

    ``parameters`` maps the names of the ``state_dict`` to the parameters (tied ones appear
    under each of their names), ``trainable`` names those that the task did not freeze.
    """

    def __init__(self, task: GradientTask, device: str) -> None:
        self.task = task
        self.device = torch.device(device)
        self.module = task.model().to(self.device)
        self.parameters = dict(self.module.named_parameters(remove_duplicate=False))
        self.trainable = {name for name, p in self.parameters.items() if p.requires_grad}
        persistent = [k for k, v in self.module.state_dict().items() if torch.is_tensor(v)]
        self.names = tuple(persistent)
        self.blocks = BlockMap.of(self.names, task.blocks)
        # A buffer is looked up in its module each time: forward may put a new tensor there.
        self._homes = {
            f"{prefix}.{key}" if prefix else key: (module, key)
            for prefix, module in self.module.named_modules(remove_duplicate=False)
            for key, value in module._buffers.items()
            if value is not None
        }
        self.buffers = tuple(name for name in self.names if name in self._homes)
        # What never travels must not leak from one client into the next either.
        self._transient = {
            name: self.tensor(name).clone() for name in self._homes if name not in set(self.names)
        }
        self._initial: tuple[int, Mapping[str, np.ndarray]] | None = None

    def tensor(self, name: str) -> torch.Tensor:
        """Return the live parameter or buffer, detached but sharing its storage."""
        if name in self.parameters:
            return self.parameters[name].detach()
        module, key = self._homes[name]
        return cast(torch.Tensor, module._buffers[key])

    def read(self, name: str, dtype: np.dtype[np.generic] | None = None) -> np.ndarray:
        """Return a fresh numpy copy of an array."""
        return np.array(self.tensor(name).cpu().numpy(), dtype=dtype, order="C")

    def write(self, name: str, value: np.ndarray, where: Place) -> None:
        """Overwrite an array; raises :class:`ConfigError` if shape or kind do not fit."""
        tensor = self.tensor(name)
        if value.shape != tuple(tensor.shape):
            raise ConfigError(
                f"{where}: array '{name}' has shape {value.shape}, "
                f"the model expects {tuple(tensor.shape)}"
            )
        try:
            if self.device.type == "cpu":
                # Through numpy, since torch warns of the server's read-only arrays.
                np.copyto(tensor.numpy(), value, casting="same_kind")
            else:
                tensor.copy_(torch.from_numpy(np.array(value)))
        except TypeError as error:
            raise ConfigError(f"{where}: array '{name}': {error}") from error

    def load(self, order: Order, site: SiteContext) -> None:
        """Put the received blocks in; what was not sent comes from a place that is fixed.

        That is the site's own ``local/<array>``, or else the task's initial arrays at
        ``Seeds(root).at("initial")``; never what the last client left behind.
        """
        where = Place(order, site)
        for name in order.arrays:
            if name not in self.parameters and name not in self._homes:
                raise ConfigError(
                    f"{where}: the model has no array '{name}'{nearest(name, self.names)}"
                )
        for name in self.names:
            if name in order.arrays:
                self.write(name, order.arrays[name], where)
            elif f"local/{name}" in site.state:
                self.write(name, site.state[f"local/{name}"], where)
            else:
                self.write(name, self._initial_array(name, site.seeds.root, where), where)
        for name, value in self._transient.items():
            self.tensor(name).copy_(value)

    def _initial_array(self, name: str, root: int, where: Place) -> np.ndarray:
        if self._initial is None or self._initial[0] != root:
            self._initial = (root, self.task.initial_arrays(Seeds(root).at("initial")))
        arrays = self._initial[1]
        if name not in arrays:
            raise ConfigError(
                f"{where}: array '{name}' was not sent, is not kept at the site and is not "
                "among the task's initial arrays; send its block"
            )
        return arrays[name]


class ModelCache:
    """The model of the task seen last. Held by the kernel; it keeps that one task alive."""

    def __init__(self) -> None:
        self._last: ReusedModel | None = None

    def __call__(self, task: Task, device: str) -> ReusedModel:
        """Return the task's model, built when the task or the device is a new one."""
        last = self._last
        if last is None or last.task is not task or last.device != torch.device(device):
            if not (hasattr(task, "model") and hasattr(task, "loss")):
                raise ConfigError(
                    f"{type(task).__name__} has no model and loss: this kernel needs a GradientTask"
                )
            last = self._last = ReusedModel(cast(GradientTask, task), device)
        return last


class Averages:
    """Means over rows, from means over batches."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._rows: dict[str, int] = {}

    def add(self, metrics: Mapping[str, float], rows: int) -> None:
        """Take in one batch's means."""
        for name, value in metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value) * rows
            self._rows[name] = self._rows.get(name, 0) + rows

    def means(self) -> dict[str, float]:
        """Return each metric's mean over the rows it was given for."""
        return {name: total / self._rows[name] for name, total in self._sums.items()}


@dataclass(frozen=True)
class Place:
    """Where an error happened; put into words only then, as a task may list sites slowly."""

    order: Order
    site: SiteContext

    def __str__(self) -> str:
        name = self.site.task.sites[self.site.site].name
        return f"site '{name}', round {self.order.round}, phase '{self.order.phase.name}'"


def checked(data: object, device: torch.device, where: Place) -> Batch:
    """Move a site's tensors to the device; raises :class:`DataError` if there are no rows."""
    if not isinstance(data, tuple) or not data or not all(map(torch.is_tensor, data)):
        raise DataError(f"{where}: its data is no tuple of tensors")
    lengths = {len(part) if part.ndim else 0 for part in data}
    if len(lengths) > 1:
        raise DataError(f"{where}: its tensors have {sorted(lengths)} rows, but must have as many")
    if lengths == {0}:
        raise DataError(f"{where}: it has no rows of data; leave it out of the cohort")
    return tuple(part.to(device) for part in data)


def viewed(rows: np.ndarray, fraction: float, seeds: Seeds) -> np.ndarray:
    """Return a view's rows: ``⌈fraction·n⌉`` of them, drawn without replacement, in order."""
    if fraction >= 1.0:
        return rows
    # 0.07·100 is 7.000000000000001 in floating point and still means 7 rows.
    count = max(1, math.ceil(fraction * len(rows) - 1e-9))
    return np.sort(seeds.at("view").numpy().choice(rows, count, replace=False))


@contextmanager
def lent_randomness(seeds: Seeds, device: torch.device) -> Iterator[None]:
    """Seed torch's ambient generator for a while and give it back as it was.

    Dropout and its like draw from that generator and from no other.
    """
    # Not torch.manual_seed: it seeds every device there may be, and where CUDA sleeps it
    # queues each call with a formatted stack trace, for good.
    generator = torch.default_generator
    if device.type == "cuda":
        generator = torch.cuda.default_generators[device.index or 0]
    former = generator.get_state()
    generator.manual_seed(seeds.at("torch").integer())
    try:
        yield
    finally:
        generator.set_state(former)


@torch.no_grad()
def mean_loss(
    model: ReusedModel, data: Batch, rows: np.ndarray, seeds: Seeds
) -> tuple[float, dict[str, float]]:
    """Return the model's loss and the task's metrics over the rows, in evaluation mode."""
    model.module.eval()
    averages = Averages()
    with lent_randomness(seeds, model.device):
        for part in torch.split(torch.from_numpy(rows).to(model.device), EVALUATION_BATCH):
            loss, metrics = model.task.loss(model.module, take(data, part))
            averages.add({**metrics, "loss": loss.item()}, len(part))
    means = averages.means()
    return means.pop("loss"), means


def take(data: Sequence[torch.Tensor], rows: torch.Tensor) -> Batch:
    """Return the batch at some rows."""
    return tuple(part.index_select(0, rows) for part in data)


@dataclass(frozen=True)
class EvaluateKernel:
    """Judge the received model on ``task.site_eval_data(site)``, or else its training data."""

    _models: ModelCache = field(default_factory=ModelCache, repr=False, compare=False)

    def __call__(self, order: Order, site: SiteContext) -> Work:
        """Return no arrays, the row count, ``loss`` and the task's own metrics.

        Raises :class:`DataError` for a site without rows.
        """
        if order.phase.params:
            keys = ", ".join(f"params.{key}" for key in order.phase.params)
            raise ConfigError(f"phase '{order.phase.name}': evaluate takes no params, got {keys}")
        model = self._models(site.task, order.device)
        of_site = getattr(site.task, "site_eval_data", site.task.site_data)
        data = checked(of_site(site.site), model.device, Place(order, site))
        rows = viewed(np.arange(len(data[0])), order.phase.view.fraction, site.seeds)
        model.load(order, site)
        loss, metrics = mean_loss(model, data, rows, site.seeds)
        return Work({}, len(rows), {**metrics, "loss": loss})

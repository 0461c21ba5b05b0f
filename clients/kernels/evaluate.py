"""The model as a site received it, and its mean loss on the site's data.

For rows x₁ … xₙ of the site and the received weights w this kernel reports

    F(w) = 1/n · Σᵢ ℓ(w; xᵢ)

and the task's own metrics, in evaluation mode and without a gradient. Nothing is trained. A task
whose sites' data fall into slices (tasks of a stream, modalities) has each of them measured too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from fedalt.alternation.phase import View
from fedalt.clients.kernels.base import Order, SiteContext, Work
from fedalt.clients.kernels.exact import exact
from fedalt.clients.kernels.model import ModelCache, Place, ReusedModel
from fedalt.clients.kernels.views import seen
from fedalt.errors import ConfigError, DataError
from fedalt.seeds import Seeds

Batch = tuple[torch.Tensor, ...]
Measure = torch.Tensor | float
"""A metric as tasks may give it: a number, or a tensor of no dimensions."""
EVALUATION_BATCH = 512


class Averages:
    """Means over rows, from means over batches."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._rows: dict[str, int] = {}

    def add(self, metrics: Mapping[str, Measure], rows: int) -> None:
        """Take in one batch's means."""
        for name, value in metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value) * rows
            self._rows[name] = self._rows.get(name, 0) + rows

    def means(self) -> dict[str, float]:
        """Return each metric's mean over the rows it was given for."""
        return {name: total / self._rows[name] for name, total in self._sums.items()}


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
            with model.autocast():
                loss, metrics = model.task.loss(model.module, model.laid_out(take(data, part)))
            averages.add({**metrics, "loss": loss.item()}, len(part))
    means = averages.means()
    return means.pop("loss"), means


def take(data: Sequence[torch.Tensor], rows: torch.Tensor) -> Batch:
    """Return the batch at some rows."""
    return tuple(part.index_select(0, rows) for part in data)


@dataclass(frozen=True)
class EvaluateKernel:
    """Judge the received model on ``task.site_eval_data(site)``, or else its training data.

    ``task.site_eval_slices(site)``, name to rows of that data, are judged one by one where there
    are such: ``accuracy/<name>`` for a metric ``accuracy``. A task whose judgement is no mean
    over rows gives its own: ``task.site_judge(model, site)``, number of cases and metrics.
    """

    _models: ModelCache = field(default_factory=ModelCache, repr=False, compare=False)

    def __call__(self, order: Order, site: SiteContext) -> Work:
        """Return no arrays, the row count, ``loss`` and the task's own metrics.

        Raises :class:`DataError` for a site without rows.
        """
        if order.phase.view.stream is not None:
            raise ConfigError(
                f"phase '{order.phase.name}': evaluate judges all of a site's data; set "
                "evaluate.clients_every instead of putting it into a stream"
            )
        if order.phase.params:
            keys = ", ".join(f"params.{key}" for key in order.phase.params)
            raise ConfigError(f"phase '{order.phase.name}': evaluate takes no params, got {keys}")
        model = self._models(site.task, order.device, order.precision)
        if hasattr(site.task, "site_judge"):
            return _judged(model, order, site)
        of_site = getattr(site.task, "site_eval_data", site.task.site_data)
        data = checked(of_site(site.site), model.device, Place(order, site))
        slices = getattr(site.task, "site_eval_slices", None)
        named = {} if slices is None else slices(site.site)
        try:
            rows = seen(np.arange(len(data[0])), order.phase.view, site.seeds, named)
        except DataError as error:
            raise DataError(f"{Place(order, site)}: {error}") from error
        model.load(order, site)
        inside = {name: rows[np.isin(rows, some)] for name, some in named.items()}
        with exact(order):
            return Work({}, len(rows), _measured(model, data, rows, inside, site.seeds))


def _judged(model: ReusedModel, order: Order, site: SiteContext) -> Work:
    """Let the task judge the received model on a site's cases."""
    task: Any = site.task
    if order.phase.view != View():
        raise ConfigError(
            f"phase '{order.phase.name}': this task judges whole cases by itself, of which a view "
            "shows no part; take the phase's view away"
        )
    model.load(order, site)
    model.module.eval()
    with exact(order), torch.no_grad(), lent_randomness(site.seeds, model.device):
        cases, metrics = task.site_judge(model.module, site.site)
    if not cases:
        raise DataError(f"{Place(order, site)}: it has no cases to judge a model on")
    return Work({}, cases, {name: float(value) for name, value in metrics.items()})


def _measured(
    model: ReusedModel,
    data: Batch,
    rows: np.ndarray,
    slices: Mapping[str, np.ndarray],
    seeds: Seeds,
) -> dict[str, float]:
    """Return the metrics over the rows, and over each slice of them that has any."""
    whole, found = Averages(), dict[str, float]()
    for name, some in slices.items():
        if len(some):
            loss, metrics = mean_loss(model, data, some, seeds)
            whole.add({**metrics, "loss": loss}, len(some))
            found |= {f"{key}/{name}": v for key, v in {**metrics, "loss": loss}.items()}
    # Slices that hold each row once have measured all of them already.
    if not np.array_equal(np.sort(np.concatenate([rows[:0], *slices.values()])), rows):
        loss, metrics = mean_loss(model, data, rows, seeds)
        return {**metrics, "loss": loss, **found}
    return whole.means() | found

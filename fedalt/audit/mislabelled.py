"""Records with wrong labels: what a model remembers of them is memory alone.

Copies of rows get a random other label; each joins its site with probability ½. After the run,
what the loss of a record fell by tells members from others (``membership``). It is an attack from
outside, on the final model alone, and weaker than the canaries whose gradients are known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedalt.alternation.site import Site
from fedalt.audit.rows import append_rows, lengthened
from fedalt.audit.wrapped import Named, Wrapped
from fedalt.seeds import Seeds
from fedalt.task import Task

if TYPE_CHECKING:
    import torch

SHARE = 0.1
"""At most that share of a federation's rows is added, so that it still learns."""
FEWEST = 20


def can_mislabel(task: Task, phases: Sequence[Any]) -> bool:
    """Say whether a task's rows have labels to change: whole numbers, last in a batch."""
    if not hasattr(task, "model") or not hasattr(task, "loss"):
        return False
    if any(phase.view.stream is not None for phase in phases):
        return False
    home = next((site.index for site in task.sites if site.size), None)
    if home is None or SHARE * sum(site.size for site in task.sites) < FEWEST:
        return False
    data = task.site_data(home)
    if not isinstance(data, tuple) or len(data) < 2:
        return False
    labels = data[-1]
    return labels.ndim == 1 and not labels.is_floating_point() and len(labels.unique()) > 1


class Mislabelled(Wrapped):
    """A classification task of which some sites have rows with wrong labels."""

    def __init__(self, task: Task, count: int, seeds: Seeds) -> None:
        super().__init__(task)
        rng = seeds.at("mislabelled").numpy()
        sizes = np.asarray([site.size for site in task.sites])
        count = min(count, int(SHARE * sizes.sum()))
        self._homes = rng.choice(len(sizes), count, p=sizes / sizes.sum())
        self.present = rng.random(count) < 0.5
        """Which records are in (count,)."""
        self._draws = rng.random((count, 2))
        self._added = np.bincount(self._homes[self.present], minlength=len(sizes))
        self._data: dict[int, tuple[torch.Tensor, ...]] = {}
        self._classes = self._seen_classes()

    def _seen_classes(self) -> np.ndarray:
        labels = [self._task.site_data(int(i))[-1].unique() for i in np.unique(self._homes)[:50]]
        return np.unique(np.concatenate([part.numpy() for part in labels]))

    @property
    def sites(self) -> Sequence[Site]:
        """The task's sites, with the rows that are in."""
        return lengthened(self._task.sites, self._added)

    def site_data(self, site: int) -> tuple[torch.Tensor, ...]:
        """Return a site's rows, then those with wrong labels that are in."""
        if site not in self._data:
            own = self._task.site_data(site)
            extra = self._records(np.flatnonzero((self._homes == site) & self.present), site)
            self._data[site] = _joined(own, extra)
        return self._data[site]

    def _records(self, which: np.ndarray, site: int) -> tuple[torch.Tensor, ...]:
        """Return some records of a site as a batch."""
        import torch

        own = self._task.site_data(site)
        rows = (self._draws[which, 0] * len(own[0])).astype(np.int64)
        batch = tuple(part[len(own[0]) :] for part in append_rows(own, rows))
        before = np.searchsorted(self._classes, batch[-1].numpy())
        count = len(self._classes)
        # One of the other classes: a step of 1 … count − 1 around the circle of them.
        step = 1 + (self._draws[which, 1] * (count - 1)).astype(np.int64)
        wrong = torch.from_numpy(self._classes[(before + step) % count]).to(batch[-1].dtype)
        return *batch[:-1], wrong

    def scores(self, before: Named, after: Named) -> np.ndarray:
        """Return by how much each record's loss fell from one model to another (count,)."""
        fallen = np.zeros(len(self._homes))
        for sign, arrays in ((1.0, before), (-1.0, after)):
            model = _loaded(self._task, arrays)
            for site in np.unique(self._homes).tolist():
                which = np.flatnonzero(self._homes == site)
                fallen[which] += sign * _losses(self._task, model, self._records(which, site))
        return fallen


def _joined(
    own: tuple[torch.Tensor, ...], extra: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, ...]:
    import torch

    return tuple(torch.cat([a, b]) for a, b in zip(own, extra, strict=True))


def _loaded(task: Any, arrays: Named) -> torch.nn.Module:
    import torch

    model: torch.nn.Module = task.model()
    state: Mapping[str, torch.Tensor] = {n: torch.tensor(v) for n, v in arrays.items()}
    model.load_state_dict(state)
    return model.eval()


def _losses(task: Any, model: torch.nn.Module, batch: tuple[torch.Tensor, ...]) -> np.ndarray:
    import torch

    with torch.no_grad():
        rows = range(len(batch[0]))
        return np.asarray(
            [float(task.loss(model, tuple(p[i : i + 1] for p in batch))[0]) for i in rows]
        )

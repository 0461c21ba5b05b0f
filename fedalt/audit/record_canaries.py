"""Canaries that are records: the gradient of each points along a coordinate of its own.

The model gains an array that nothing else reads, in a block that the phase trains. A canary row
has the loss −A·w_k in place of a row's own, so that its gradient is A in coordinate k of that
array, which clipping bounds at C ("Dirac canaries"; Nasr et al. 2023, "Tight auditing of
differentially private machine learning"). One that is out has the loss 0: it stands among a
site's rows and adds nothing, so that the number of rows, and with it the sample's rate, tells
nothing. What the model learns does not reach those coordinates, noise does.

The reader sees what each site answers, which is what noise at the site has to withstand. The
score of canary k of a site is what its answers added to the coordinate, Σ_t (w_t − w_received)_k.
Rows must be seen one at a time, as where gradients of single rows are had by functorch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fedalt.alternation.block import ALL, Block
from fedalt.alternation.local import LOCAL
from fedalt.alternation.phase import Phase
from fedalt.alternation.site import Site
from fedalt.audit.rows import append_rows, lengthened
from fedalt.audit.wrapped import Named, Wrapped
from fedalt.errors import ConfigError
from fedalt.privacy.stages import GRADIENT, leaves
from fedalt.seeds import Seeds
from fedalt.task import Task

if TYPE_CHECKING:
    import torch

LOUD = 100.0
"""A canary's gradient, in clips."""
ARRAY = "audit_canaries"
"""What the arrays are called that the model gains, with a number behind it."""
_REAL, _OUT = -1, -2
"""In place of a coordinate: a row of the site's own, and a canary that is out."""


def private_leaves(phase: Phase) -> list[Phase]:
    """Return the stages of a phase that train by gradients and hide a record or a user."""
    return [
        leaf
        for leaf in leaves(phase)
        if leaf.privacy is not None and leaf.privacy.unit != "client" and leaf.kernel == GRADIENT
    ]


class RecordCanaries(Wrapped):
    """A gradient task with ``count`` more rows, shared out evenly among its sites.

    Raises :class:`ConfigError` for phases whose rows no canary can join.
    """

    def __init__(self, task: Task, count: int, seeds: Seeds, phases: Sequence[Phase]) -> None:
        super().__init__(task)
        some = [leaf for phase in phases for leaf in private_leaves(phase)]
        _check(some, phases)
        live = np.asarray([site.index for site in task.sites if site.size])
        if count < 2 or not len(live):
            raise ConfigError(f"an audit needs at least 2 canaries and a site with rows: {count}")
        blocks = dict.fromkeys(_first_shared(leaf, phases) for leaf in some)
        self._arrays = {f"{ARRAY}_{i}": block for i, block in enumerate(blocks)}
        self._loud = LOUD * max(leaf.privacy.clip for leaf in some if leaf.privacy)
        rng = seeds.at("coin").numpy()
        self.present = rng.random(count) < 0.5
        """Which canaries are in (count,): what the audit guesses."""
        self._homes = live[np.arange(count) % len(live)]
        # Of one site all differ; sites answer apart, so that they may share coordinates.
        self._places = np.arange(count) // len(live)
        self._size = int(self._places.max()) + 1
        self._added = np.bincount(self._homes, minlength=len(task.sites))
        self._found = np.zeros(count)
        self._data: dict[int, tuple[torch.Tensor, ...]] = {}

    @property
    def sites(self) -> Sequence[Site]:
        """The task's sites, each with its canaries' rows."""
        return lengthened(self._task.sites, self._added)

    @property
    def blocks(self) -> Sequence[Block]:
        """The task's blocks, some with an array for canaries."""
        extra: dict[str, list[str]] = {}
        for name, block in self._arrays.items():
            extra.setdefault(block, []).append(name)
        return [replace(b, globs=(*b.globs, *extra.get(b.name, ()))) for b in self._task.blocks]

    @property
    def crowded(self) -> bool:
        """Whether canaries share coordinates: each has its own."""
        return False

    def model(self) -> torch.nn.Module:
        """Build the task's model with the canaries' arrays beside its own."""
        import torch

        made: torch.nn.Module = self._gradient_task.model()
        kind = next(p.dtype for p in made.parameters() if p.is_floating_point())
        for name in self._arrays:
            made.register_parameter(name, torch.nn.Parameter(torch.zeros(self._size, dtype=kind)))
        return made

    def initial_arrays(self, seeds: Seeds) -> dict[str, np.ndarray]:
        """Return the task's arrays, then those for canaries, which begin at 0."""
        arrays = self._task.initial_arrays(seeds)
        kind = next(v.dtype for v in arrays.values() if np.issubdtype(v.dtype, np.floating))
        return {**arrays, **{name: np.zeros(self._size, kind) for name in self._arrays}}

    def without(self, arrays: Named) -> dict[str, np.ndarray]:
        """Return a model's arrays as the task knows them."""
        return {name: values for name, values in arrays.items() if name not in self._arrays}

    def evaluate(self, arrays: Named) -> dict[str, float]:
        """Judge a model as the task does."""
        return self._task.evaluate(self.without(arrays))

    def site_data(self, site: int) -> tuple[torch.Tensor, ...]:
        """Return a site's rows and its canaries', and the coordinate of each as a last tensor."""
        if site not in self._data:
            self._data[site] = self._joined(self._task.site_data(site), site)
        return self._data[site]

    def _joined(self, data: tuple[torch.Tensor, ...], site: int) -> tuple[torch.Tensor, ...]:
        import torch

        own = np.flatnonzero(self._homes == site)
        # What a canary's row holds does not matter, but must be of a kind that the model takes.
        rows = np.arange(len(own)) % max(1, len(data[0]))
        extended = append_rows(data, rows)
        places = np.where(self.present[own], self._places[own], _OUT)
        told = np.concatenate([np.full(len(data[0]), _REAL), places])
        return *extended, torch.from_numpy(told)

    def loss(
        self, model: torch.nn.Module, batch: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, Mapping[str, Any]]:
        """Return the task's loss of a row of its own, −A·w_k of a canary, 0 of one that is out."""
        *rest, place = batch
        inner, metrics = self._gradient_task.loss(model, tuple(rest))
        total = inner * (place == _REAL).to(inner.dtype).mean()
        here = (place >= 0).to(inner.dtype)
        for name in self._arrays:
            values = getattr(model, name)
            total = total - self._loud * (values[place.clamp(min=0)] * here).mean()
        return total, metrics

    @property
    def _gradient_task(self) -> Any:
        return self._task

    def released(self, phase: Phase, site: int, received: Named, answer: Named) -> None:
        """Add up what a site's answer says of its canaries."""
        mine = self._homes == site
        for name in self._arrays:
            if name in answer and name in received:
                change = answer[name].astype(np.float64) - received[name]
                self._found[mine] += change[self._places[mine]]

    def scores(self) -> np.ndarray:
        """Return every canary's score (count,), in units of its site's spread."""
        found = self._found.copy()
        for site in np.unique(self._homes):
            own = self._homes == site
            found[own] -= found[own].mean()
            spread = found[own].std()
            # A site that never took part says nothing about anyone.
            found[own] = found[own] / spread if spread > 0 else 0.0
        return found


def _check(private: Sequence[Phase], phases: Sequence[Phase]) -> None:
    if not private:
        raise ConfigError(
            "no phase trains by gradients that hide a record or a user: what other kernels "
            "release of records cannot be audited"
        )
    for phase in (*phases, *private):
        if phase.view.slices or phase.view.stream is not None:
            raise ConfigError(
                f"phase '{phase.name}': canaries belong to no slice and no task of a stream, so "
                "its rows cannot be audited"
            )


def _first_shared(leaf: Phase, phases: Sequence[Phase]) -> str:
    """Return the first block that a stage trains and that does not stay at the site."""
    local = {b for phase in phases for b, rule in phase.aggregate.items() if rule == LOCAL}
    for block in leaf.train or (ALL,):
        if block not in local:
            return block
    raise ConfigError(f"phase '{leaf.name}' trains only blocks that stay at the site: it tells "
                      "nothing that an audit could see")  # fmt: skip

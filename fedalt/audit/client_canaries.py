"""Canaries that are clients: each answers with an update along a direction of its own.

Client-level audits in the manner of Andrew et al. 2023, "One-shot empirical privacy estimation
for federated learning". A canary that is in answers w + A·s_j, with signs s_j and an A so large
that clipping bounds it, which is thereby tested as well. One that is out takes part all the same,
so that nothing public tells the two apart, and answers w, which adds nothing to the sum; under
``replace_one`` it answers w − A·s_j, another client in its place.

The score is what a reader of every round's model has, the changes in the rounds of those phases
that could reach the canary, along its direction:

    score_j = Σ_phases 1/z² Σ_groups 1/(C_g √d_g) ⟨Σ_t (w_t − w_{t−1})_g, s_j⟩,

which for averages is the log-likelihood ratio of in and out, but for a constant. A server
optimiser bends it, which weakens the audit and leaves it sound. Where sites add the noise
themselves, the reader has every site's answer, and the canary's own change takes the sum's place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fedalt.alternation.block import Block, BlockMap
from fedalt.alternation.phase import Phase
from fedalt.alternation.privacy_spec import PrivacySpec
from fedalt.alternation.site import Site
from fedalt.audit.directions import Directions
from fedalt.audit.wrapped import Named, Wrapped
from fedalt.errors import ConfigError
from fedalt.seeds import Seeds
from fedalt.task import Task

MARK = "canary"
"""The attribute of sites that are canaries."""
ROOM = 10
"""With so many numbers a canary, others add at most a fifth of a clip to its score's spread."""
LOUD = 10.0
"""A canary's change in each coordinate, in clips: far beyond what may pass."""


@dataclass
class _Seen:
    """What the models told of a phase: its changes added up, by array."""

    phase: Phase
    changes: dict[str, np.ndarray] = field(default_factory=dict)


def protects_clients(phase: Phase) -> bool:
    """Say whether a phase hides a client."""
    return phase.privacy is not None and phase.privacy.unit == "client"


def is_local(phase: Phase) -> bool:
    """Say whether a phase's sites add the noise themselves, each to its own answer."""
    return protects_clients(phase) and phase.privacy is not None and phase.privacy.trust == "local"


class ClientCanaries(Wrapped):
    """A task with ``count`` more sites, each with the attributes of one that is there."""

    def __init__(self, task: Task, count: int, seeds: Seeds, opposite: bool = False) -> None:
        super().__init__(task)
        self._real = len(task.sites)
        if count < 2 or not self._real:
            raise ConfigError(f"an audit needs at least 2 canaries and a site, not {count}")
        self._directions = Directions(seeds)
        self._opposite = opposite
        rng = seeds.at("coin").numpy()
        self.present = rng.random(count) < 0.5
        """Which canaries are in (count,): what the audit guesses."""
        largest = max(site.size for site in task.sites)
        like = rng.permutation(np.arange(count) % self._real)
        self._sites = [
            *task.sites,
            *(
                Site(self._real + j, f"canary-{j}", largest, _marked(task.sites[int(i)]))
                for j, i in enumerate(like)
            ),
        ]
        self._last: dict[str, np.ndarray] | None = None
        self._ordered: list[tuple[Phase, tuple[str, ...]]] = []
        self._seen: dict[str, _Seen] = {}
        self._apart = np.zeros(count)

    @property
    def sites(self) -> Sequence[Site]:
        """The task's sites, then the canaries."""
        return self._sites

    def initial_arrays(self, seeds: Seeds) -> dict[str, np.ndarray]:
        """Return the task's model, and look at it."""
        arrays = self._task.initial_arrays(seeds)
        if self._last is None:
            self._last = {name: np.array(values) for name, values in arrays.items()}
        return arrays

    def canary_kernel(self, phase: Phase, site: int) -> bool:
        """Say whether a site is a canary."""
        return site >= self._real

    def canary_answer(self, phase: Phase, site: int, received: Named) -> dict[str, np.ndarray]:
        """Return a canary's arrays for those it is to train."""
        canary = site - self._real
        answer = {name: np.array(values) for name, values in received.items()}
        if not protects_clients(phase) or not (self.present[canary] or self._opposite):
            return answer
        assert phase.privacy is not None
        loud = LOUD * max((phase.privacy.clip, *phase.privacy.clips.values()))
        loud = loud if self.present[canary] else -loud
        for name, values in answer.items():
            if np.issubdtype(values.dtype, np.floating):
                signs = self._directions.signs(canary, name, values.size)
                values += (loud * signs.reshape(values.shape)).astype(values.dtype)
        return answer

    def ordered(self, phase: Phase, trained: Sequence[str]) -> None:
        """Remember what this round's change is of."""
        if protects_clients(phase):
            self._ordered.append((phase, tuple(trained)))

    def released(self, phase: Phase, site: int, received: Named, answer: Named) -> None:
        """Look at what a canary's site answers, where that is what noise protects."""
        if site < self._real or not is_local(phase):
            return
        changes = {
            name: values.astype(np.float64) - received[name]
            for name, values in answer.items()
            if name in received and np.issubdtype(values.dtype, np.floating)
        }
        weighted = _weighted(_Seen(phase, changes), BlockMap.of(answer, self._blocks_of(answer)))
        canary = np.asarray([site - self._real])
        self._apart[canary] += self._directions.products(canary, weighted)

    def _blocks_of(self, arrays: Named) -> list[Block]:
        """Return the blocks that some of the arrays belong to."""
        return [b for b in self._task.blocks if any(b.matches(name) for name in arrays)]

    def evaluate(self, arrays: Named) -> dict[str, float]:
        """Judge a round's model, and add up how it changed."""
        assert self._last is not None
        for phase, trained in self._ordered:
            seen = self._seen.setdefault(phase.name, _Seen(phase))
            for name in trained:
                if np.issubdtype(arrays[name].dtype, np.floating):
                    change = arrays[name].astype(np.float64) - self._last[name]
                    seen.changes[name] = seen.changes.get(name, 0.0) + change
        self._ordered.clear()
        self._last = {name: np.array(values) for name, values in arrays.items()}
        return self._task.evaluate(arrays)

    def scores(self) -> np.ndarray:
        """Return every canary's score (count,); canaries that meet the same phases are centred.

        Raises :class:`ConfigError` if no phase that protects clients has been.
        """
        if not self._seen or self._last is None:
            raise ConfigError("no phase that protects clients has trained anything in the twin run")
        blocks = BlockMap.of(self._last, self._task.blocks)
        canaries = self._sites[self._real :]
        met = np.stack([_fits(seen.phase, canaries) for seen in self._seen.values()])
        found = np.zeros(len(canaries))
        for seen, reached in zip(self._seen.values(), met, strict=True):
            places = np.flatnonzero(reached)
            if is_local(seen.phase):
                continue
            found[places] += self._directions.products(places, _weighted(seen, blocks))
        found += self._apart
        for pattern in np.unique(met, axis=1).T:
            group = (met == pattern[:, None]).all(axis=0)
            found[group] -= found[group].mean()
        return found

    @property
    def crowded(self) -> bool:
        """Whether so many directions in so few numbers meet each other as loudly as noise."""
        sizes = {n: v.size for seen in self._seen.values() for n, v in seen.changes.items()}
        return sum(sizes.values()) < ROOM * len(self.present)


def _marked(site: Site) -> dict[str, str]:
    return {**site.attributes, MARK: "yes"}


def _fits(phase: Phase, sites: Sequence[Site]) -> np.ndarray:
    return np.asarray([phase.clients.fits(site) for site in sites])


def _weighted(seen: _Seen, blocks: BlockMap) -> dict[str, np.ndarray]:
    """Weigh a phase's changes as the score does: by 1/(z² C √d) of the group that was clipped."""
    spec = seen.phase.privacy
    assert spec is not None
    weighted: dict[str, np.ndarray] = {}
    for clip, names in _groups(spec, blocks, tuple(seen.changes)):
        size = sum(seen.changes[name].size for name in names)
        for name in names:
            weighted[name] = seen.changes[name] / (spec.noise**2 * clip * math.sqrt(size))
    return weighted


def _groups(
    spec: PrivacySpec, blocks: BlockMap, names: Sequence[str]
) -> list[tuple[float, list[str]]]:
    """Return which arrays are clipped together, and at what norm."""
    if not spec.clips:
        return [(spec.clip, list(names))]
    found = [
        (clip, [name for name in blocks.members[block] if name in names])
        for block, clip in spec.clips.items()
    ]
    return [(clip, some) for clip, some in found if some]

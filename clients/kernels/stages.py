"""A client's work as stages, and a stage's work as batches of rows.

A phase without inner phases is one stage; inner phases (``nest``) are as many as there are,
in order. Which rows a batch holds follows from the stage's seeds alone, whatever computes it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from fedalt.alternation.block import BlockMap
from fedalt.alternation.phase import Phase, View
from fedalt.alternation.privacy_spec import PrivacySpec
from fedalt.clients.kernels.base import Order
from fedalt.clients.kernels.settings import LocalSettings
from fedalt.clients.kernels.views import only, seen
from fedalt.errors import ConfigError, ScheduleError
from fedalt.seeds import Label, Seeds


@dataclass(frozen=True)
class Stage:
    """A phase without inner phases, ready to run: one stretch of the client's work.

    ``arrays`` are trained, ``rows`` seen; ``scope`` names its optimiser state at the site.
    ``turns`` are the rows of slices whose batches take turns, none where rows are mixed.
    """

    phase: Phase
    settings: LocalSettings
    arrays: tuple[str, ...]
    rows: np.ndarray
    seeds: Seeds
    scope: str
    turns: tuple[np.ndarray, ...] = ()


def spec_of(phase: Phase) -> PrivacySpec | None:
    """Return the spec by which a stage trains with DP-SGD; None where it does not."""
    spec = phase.privacy
    return spec if spec is not None and spec.unit in ("record", "user") else None


@dataclass(frozen=True)
class Plan:
    """A stage before it is any client's: the same for all that received the order.

    ``views`` leads from the order's phase to this one: where each inner phase draws from, and
    its view of the outer's rows. ``slices`` are those that take turns in it.
    """

    phase: Phase
    settings: LocalSettings
    arrays: tuple[str, ...]
    views: tuple[tuple[tuple[Label, ...], View], ...]
    scope: str
    slices: tuple[str, ...] = ()

    @property
    def sliced(self) -> bool:
        """Whether some view on the way to this stage names slices."""
        return any(view.slices for _, view in self.views)

    def of(
        self,
        rows: np.ndarray,
        seeds: Seeds,
        share: float | None = None,
        sliced: Mapping[str, np.ndarray] | None = None,
    ) -> Stage:
        """Return a client's stage; ``rows`` are those that the order's phase lets it see.

        With a ``share``, an epoch takes as many steps as that share of the rows makes.
        ``sliced`` are the site's slices, by name. Raises :class:`DataError` for one it lacks.
        """
        for labels, view in self.views:
            seeds = seeds.at(*labels)
            rows = seen(rows, view, seeds, sliced or {})
        phase = self.phase
        # A private stage's steps follow from public numbers alone, never from a site's rows.
        if share is not None and not phase.steps and spec_of(phase) is None:
            counted = max(1, round(share * len(rows)))
            phase = replace(phase, steps=phase.epochs * -(-counted // phase.batch_size))
        turns = [only(rows, (name,), sliced or {}) for name in self.slices]
        return Stage(phase, self.settings, self.arrays, rows, seeds, self.scope, tuple(turns))


def unfold(order: Order, blocks: BlockMap) -> tuple[Plan, ...]:
    """Return the stages of an order's phase.

    An inner phase sees a view of the outer's rows, draws from the seeds at
    ``("inner", position, name)`` and takes the outer's params where it sets none itself, and
    its privacy.
    Raises :class:`ConfigError` for params that do not fit and :class:`ScheduleError` for blocks.
    """
    return tuple(_unfold(order.phase, order, blocks, (), order.phase.name))


def _unfold(
    phase: Phase,
    order: Order,
    blocks: BlockMap,
    views: tuple[tuple[tuple[Label, ...], View], ...],
    scope: str,
) -> Iterator[Plan]:
    settings = LocalSettings.read(phase, order)
    if not phase.inner:
        if phase.epochs == 0 and phase.steps == 0:
            raise ConfigError(f"phase '{phase.name}': epochs and steps are 0, nothing to train")
        arrays = order.trained
        if phase is not order.phase:
            arrays = blocks.select(phase.train, f"inner phase '{phase.name}'")
        if not set(arrays) <= set(order.trained):
            raise ScheduleError(
                f"inner phase '{phase.name}' trains {sorted(set(arrays) - set(order.trained))}, "
                f"which phase '{order.phase.name}' does not return: add its block to train"
            )
        # The innermost view that names slices says which take turns.
        named = [view.slices for _, view in views if view.slices] or [order.phase.view.slices]
        yield Plan(phase, settings, arrays, views, scope, named[-1] if len(named[-1]) > 1 else ())
    for position, inner in enumerate(phase.inner):
        if inner.view.stream is not None and inner.view.stream != order.phase.view.stream:
            raise ConfigError(
                f"inner phase '{inner.name}': a client that alternates by itself is in one "
                "experience at a time; put the stream around the nest, not into it"
            )
        if inner.view.slices and order.phase.view.stream is not None:
            raise ConfigError(
                f"inner phase '{inner.name}': the rows of a stream's experience have no slices"
            )
        place: tuple[Label, ...] = ("inner", position, inner.name)
        own = replace(inner, privacy=inner.privacy or phase.privacy)
        yield from _unfold(
            own.with_params(**{**phase.params, **inner.params}),
            order,
            blocks,
            (*views, (place, inner.view)),
            f"{scope}>{inner.name}",
        )


def epochs(stage: Stage) -> Iterator[np.ndarray]:
    """Yield the row numbers of each epoch, shuffled anew; the last is cut where ``steps`` end.

    Where slices take turns, each batch is an epoch of its own.
    """
    if stage.turns:
        yield from _taking_turns(stage)
        return
    rng, phase = stage.seeds.at("batches").numpy(), stage.phase
    size, left = phase.batch_size, phase.steps
    if not left:
        for _ in range(phase.epochs):
            yield rng.permutation(stage.rows)
    while left > 0:
        shuffled = rng.permutation(stage.rows)
        yield shuffled[: left * size]
        left -= -(-len(shuffled) // size)


def _taking_turns(stage: Stage) -> Iterator[np.ndarray]:
    """Yield batches of one slice each, one slice after the other.

    An epoch ends with the slice that has the fewest batches, so that each gives as many.
    """
    rng, phase = stage.seeds.at("batches").numpy(), stage.phase
    size, left = phase.batch_size, phase.steps
    rounds = -(-min(map(len, stage.turns)) // size)
    passes = itertools.count() if left else range(phase.epochs)
    for _ in passes:
        shuffled = [rng.permutation(rows) for rows in stage.turns]
        for number, rows in itertools.product(range(rounds), shuffled):
            yield rows[number * size : (number + 1) * size]
            left -= 1
            if left == 0:
                return


def minibatches(stage: Stage) -> Iterator[np.ndarray]:
    """Yield the row numbers of each batch; an epoch's last batch may be short."""
    size = stage.phase.batch_size
    for shuffled in epochs(stage):
        for start in range(0, len(shuffled), size):
            yield shuffled[start : start + size]


def batch_sizes(rows: int, size: int) -> list[int]:
    """Return how many rows each batch of an epoch holds; the last may be short."""
    full, rest = divmod(rows, size)
    return [size] * full + [rest] * bool(rest)

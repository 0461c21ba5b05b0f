"""A client's work as stages, and a stage's work as batches of rows.

A phase without inner phases is one stage; inner phases (``nest``) are as many as there are,
in order. Which rows a batch holds follows from the stage's seeds alone, whatever computes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from fedalt.alternation.block import BlockMap
from fedalt.alternation.phase import Phase
from fedalt.clients.kernels.base import Order
from fedalt.clients.kernels.evaluate import viewed
from fedalt.clients.kernels.settings import LocalSettings
from fedalt.errors import ConfigError, ScheduleError
from fedalt.seeds import Label, Seeds


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


@dataclass(frozen=True)
class Plan:
    """A stage before it is any client's: the same for all that received the order.

    ``views`` leads from the order's phase to this one: where each inner phase draws from, and
    the fraction that it sees of the outer's rows.
    """

    phase: Phase
    settings: LocalSettings
    arrays: tuple[str, ...]
    views: tuple[tuple[tuple[Label, ...], float], ...]
    scope: str

    def of(self, rows: np.ndarray, seeds: Seeds, share: float | None = None) -> Stage:
        """Return a client's stage; ``rows`` are those that the order's phase lets it see.

        With a ``share``, an epoch takes as many steps as that share of the rows makes.
        """
        for labels, fraction in self.views:
            seeds = seeds.at(*labels)
            rows = viewed(rows, fraction, seeds)
        phase = self.phase
        if share is not None and not phase.steps:
            counted = max(1, round(share * len(rows)))
            phase = replace(phase, steps=phase.epochs * -(-counted // phase.batch_size))
        return Stage(phase, self.settings, self.arrays, rows, seeds, self.scope)


def unfold(order: Order, blocks: BlockMap) -> tuple[Plan, ...]:
    """Return the stages of an order's phase.

    An inner phase sees a view of the outer's rows, draws from the seeds at
    ``("inner", position, name)`` and takes the outer's params where it sets none itself.
    Raises :class:`ConfigError` for params that do not fit and :class:`ScheduleError` for blocks.
    """
    return tuple(_unfold(order.phase, order, blocks, (), order.phase.name))


def _unfold(
    phase: Phase,
    order: Order,
    blocks: BlockMap,
    views: tuple[tuple[tuple[Label, ...], float], ...],
    scope: str,
) -> Iterator[Plan]:
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
        yield Plan(phase, settings, arrays, views, scope)
    for position, inner in enumerate(phase.inner):
        if inner.view.stream is not None and inner.view.stream != order.phase.view.stream:
            raise ConfigError(
                f"inner phase '{inner.name}': a client that alternates by itself is in one "
                "experience at a time; put the stream around the nest, not into it"
            )
        place: tuple[Label, ...] = ("inner", position, inner.name)
        yield from _unfold(
            inner.with_params(**{**phase.params, **inner.params}),
            order,
            blocks,
            (*views, (place, inner.view.fraction)),
            f"{scope}>{inner.name}",
        )


def epochs(stage: Stage) -> Iterator[np.ndarray]:
    """Yield the row numbers of each epoch, shuffled anew; the last is cut where ``steps`` end."""
    rng, phase = stage.seeds.at("batches").numpy(), stage.phase
    size, left = phase.batch_size, phase.steps
    if not left:
        for _ in range(phase.epochs):
            yield rng.permutation(stage.rows)
    while left > 0:
        shuffled = rng.permutation(stage.rows)
        yield shuffled[: left * size]
        left -= -(-len(shuffled) // size)


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

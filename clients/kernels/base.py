"""What a kernel is given and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field

import numpy as np

from fedalt.alternation.phase import Phase, Scalar
from fedalt.seeds import Seeds
from fedalt.task import Task
from fedalt.wire.report import Applied


@dataclass(frozen=True)
class Order:
    """One broadcast, decoded once for all clients that received it.

    ``arrays`` are the blocks sent, as read-only numpy arrays that belong to the server: a
    kernel copies what it changes. ``extras`` are what a strategy added to the message's
    configuration, such as FedProx's ``proximal-mu``. ``mode`` says how a cohort is to be
    computed, ``precision`` what mixed precision may round to; ``rounds`` is how many the whole
    run may have, 0 where that is not known, ``workers`` how many processes share a cohort.
    ``keeps`` are arrays that the site trains as it does ``returns``, and keeps to itself.
    """

    run_id: str
    round: int
    phase: Phase
    arrays: Mapping[str, np.ndarray]
    returns: tuple[str, ...]
    extras: Mapping[str, Scalar] = field(default_factory=dict)
    device: str = "cpu"
    mode: str = "sequential"
    precision: str = "float32"
    rounds: int = 0
    workers: int = 1
    keeps: tuple[str, ...] = ()

    @property
    def trained(self) -> tuple[str, ...]:
        """The arrays to train: those to return, then those to keep."""
        return (*self.returns, *self.keeps)


@dataclass(frozen=True)
class SiteContext:
    """Where a kernel runs: the task, the site's index, its own persistent state, its seeds.

    ``state`` holds named arrays that stay at the site from round to round (dual variables,
    optimiser moments, buffers). A kernel replaces entries; it never changes one in place, so
    that a failed run leaves the former state. ``seeds`` is already at (round, phase, client).
    """

    task: Task
    site: int
    state: MutableMapping[str, np.ndarray]
    seeds: Seeds


@dataclass(frozen=True)
class Work:
    """What a client reports: arrays for the order's ``returns``, row count, metrics, steps.

    The arrays are the kernel's to give away: nothing else may hold or change them.
    Every client of a phase returns the same metric names. ``applied`` says what protected the
    people in the site's data, one entry a private stage of the phase, in order.
    """

    arrays: dict[str, np.ndarray]
    num_examples: int
    metrics: dict[str, float]
    steps: int = 0
    applied: tuple[Applied, ...] = ()


Kernel = Callable[[Order, SiteContext], Work]
"""What one client does in a phase: order in, work out.

A kernel may also have ``cohort(order, sites)``, which yields the work of many clients that
received the same order, or the error of each that failed, in the order of ``sites``; and
``export_facts()`` and ``import_facts(facts)``, plain data about choices that a resumed run
must take over.
"""

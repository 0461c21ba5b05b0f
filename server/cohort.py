"""What a strategy sees of the grid: the cohort of one phase, and nothing else.

Flower's strategies sample from all connected nodes with the process-global ``random``, and
wait for ever below their minimum. Here the schedule has already chosen the cohort from the
run's own generator: a strategy that trains a fraction of 1 takes all of it, one that samples
further does so from a seeded generator, and one that would wait gets a clear error.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedalt.errors import QuorumError
from fedalt.seeds import Seeds

# A stock strategy asks once for the count and once to sample; asking again means waiting.
_PATIENCE = 3
_SAMPLING = Lock()


class CohortGrid(Grid):
    """A grid narrowed to the nodes of one phase's cohort."""

    def __init__(self, grid: Grid, nodes: Sequence[int], phase: str) -> None:
        self._grid = grid
        self._nodes = list(nodes)
        self._phase = phase
        self._asked = 0

    def set_run(self, run: Run) -> None:
        """Pass on to the engine."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run of the engine."""
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Pass on to the engine."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return the cohort's nodes.

        Raises :class:`QuorumError` instead of letting a strategy wait for nodes that the
        schedule did not select.
        """
        self._asked += 1
        if self._asked > _PATIENCE:
            raise QuorumError(
                f"phase '{self._phase}': the strategy waits for more than the "
                f"{len(self._nodes)} clients the schedule selected; lower its min_train_nodes, "
                "min_evaluate_nodes and min_available_nodes, or select more clients"
            )
        return list(self._nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Pass on to the engine."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pass on to the engine."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Pass on to the engine."""
        return self._grid.send_and_receive(messages, timeout=timeout)


@contextmanager
def seeded_sampling(seeds: Seeds) -> Iterator[None]:
    """Seed the process-global ``random`` for a strategy's draw, and restore it after."""
    # Runs in several threads of one process share that generator.
    with _SAMPLING:
        former = random.getstate()
        random.seed(seeds.integer())
        try:
            yield
        finally:
            random.setstate(former)

"""The engine in this process: a Flower ``Grid`` that calls the ClientApp itself.

Node ids come from the run's seed, every node keeps its state from message to message,
a client's exception becomes an error reply and leaves its former state, and arrays are
shared read-only between server and clients (see ``fedalt.wire.arrays``). A ClientApp that
offers ``cohort(messages, contexts)`` is given the messages of a push together, so that it can
decode a broadcast once and run many clients as one batch.

A node costs its id until it takes part, and nothing more after it has worked unless it left
something in its ``Context``: contexts are made for a message and taken apart after it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedalt.alternation.site import Site
from fedalt.errors import ConfigError
from fedalt.grids.nodes import NodeTable, draw_node_ids
from fedalt.grids.state import STATE, export_state, guarded, import_state
from fedalt.grids.store import StateStore
from fedalt.runs.segments import SegmentRef
from fedalt.seeds import Seeds

RunConfig = Mapping[str, bool | int | float | str]
CohortHandler = Callable[[Sequence[Message], Sequence[Context]], Sequence[Message]]

COHORT = 4096
"""So many clients at once: a bound on the contexts and states that are in memory together."""


class LocalGrid(Grid):
    """A federation of ``num_nodes`` clients in this process.

    Parameters
    ----------
    client_app
        The Flower ClientApp that every node runs.
    num_nodes
        How many nodes there are; node ``i`` gets ``partition-id`` i in its node config.
    run_config
        What ClientApps read as ``context.run_config``.
    seeds
        The run's seeds; node ids are drawn from them.
    run_id
        Flower's number for the run.
    sites
        The sites that the nodes are, by index; without them a server asks by message.
    states
        Where the nodes' persistent arrays are kept; by default in memory.
    """

    def __init__(
        self,
        client_app: ClientApp,
        num_nodes: int,
        run_config: RunConfig,
        seeds: Seeds,
        run_id: int = 1,
        sites: Sequence[Site] | None = None,
        states: StateStore | None = None,
    ) -> None:
        if num_nodes < 1:
            raise ConfigError(f"a federation needs at least one client, not {num_nodes}")
        self._app = client_app
        self._run_config = dict(run_config)
        self._nodes = NodeTable(draw_node_ids(num_nodes, seeds))
        self._sites = sites
        self._states = states or StateStore()
        # What a ClientApp leaves in its Context beside our arrays, by site.
        self._records: dict[int, RecordDict] = {}
        # Contexts given out, each with the record that its arrays were lent in.
        self._open: dict[int, tuple[Context, object]] = {}
        self._replies: dict[str, Message] = {}
        self._numbers = count(1)
        self.set_run(Run.create_empty(run_id))

    def set_run(self, run: Run) -> None:
        """Set the run; Flower keeps the identity that stamps new messages in the process."""
        self._run = run
        TaskIdentity.task_id = 1
        TaskIdentity.run_id = run.run_id
        TaskIdentity.node_id = SUPERLINK_NODE_ID

    @property
    def run(self) -> Run:
        """The run this grid serves."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Build an instruction for a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return all node ids; the i-th is the site of index i."""
        return list(self._nodes.ids)

    def describe(self) -> tuple[Sequence[Site], NodeTable] | None:
        """Return the sites and their nodes, or None if a server has to ask the nodes."""
        return None if self._sites is None else (self._sites, self._nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Run the clients addressed and keep their replies for :meth:`pull_messages`."""
        batch = list(messages)
        for message in batch:
            message.metadata.__dict__["_message_id"] = f"{self._run.run_id}-{next(self._numbers)}"
        for reply in self._execute(batch):
            self._replies[reply.metadata.reply_to_message_id] = reply
        return [message.metadata.message_id for message in batch]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies there are, each once."""
        return [self._replies.pop(i) for i in message_ids if i in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push and pull. A client past ``timeout`` seconds is not started any more."""
        batch = list(messages)
        if timeout is None:
            return self.pull_messages(self.push_messages(batch))
        end = time.monotonic() + timeout
        replies: list[Message] = []
        for message in batch:
            if time.monotonic() > end:
                break
            replies.extend(self.pull_messages(self.push_messages([message])))
        return replies

    def context(self, node_id: int) -> Context:
        """Return a node's Context, with what it left there."""
        if node_id not in self._open:
            site = self._nodes.sites[node_id]
            context = Context(
                run_id=self._run.run_id,
                node_id=node_id,
                node_config={"partition-id": site, "num-partitions": len(self._nodes)},
                state=self._records.pop(site) if site in self._records else RecordDict(),
                run_config=dict(self._run_config),
            )
            import_state(context, self._states.get(site))
            self._open[node_id] = context, context.state.get(STATE)
        return self._open[node_id][0]

    def export_states(self) -> dict[int, dict[str, np.ndarray]]:
        """Return the persistent arrays of every site that holds any, by site index."""
        self._settle()
        return {site: self._states.get(site) for site in self._states.sites()}

    def import_states(self, states: Mapping[int, Mapping[str, np.ndarray]]) -> None:
        """Replace every site's persistent arrays, as a resumed run does."""
        self._open.clear()
        self._records.clear()
        self._states.replace(states)

    def save_states(self) -> tuple[SegmentRef, ...] | None:
        """Write what changed since the last call; return the segments that hold all states.

        None if the states are kept in memory only: then :meth:`export_states` has them.
        """
        self._settle()
        return self._states.save()

    def export_facts(self) -> dict[str, Any]:
        """Return what the ClientApp chose that a resumed run must take over, as plain data."""
        export: Callable[[], dict[str, Any]] = getattr(self._app, "export_facts", dict)
        return export()

    def import_facts(self, facts: Mapping[str, Any]) -> None:
        """Hand a former run's choices to the ClientApp."""
        take = getattr(self._app, "import_facts", None)
        if take is not None:
            take(facts)

    def _execute(self, batch: Sequence[Message]) -> Iterable[Message]:
        known = []
        for message in batch:
            if message.metadata.dst_node_id in self._nodes.sites:
                known.append(message)
                continue
            reason = f"node {message.metadata.dst_node_id} is not part of this federation"
            yield Message(Error(ErrorCode.NODE_UNAVAILABLE, reason), reply_to=message)
        for first in range(0, len(known), COHORT):
            yield from self._work(known[first : first + COHORT])

    def _work(self, messages: Sequence[Message]) -> Sequence[Message]:
        contexts = [self.context(m.metadata.dst_node_id) for m in messages]
        cohort: CohortHandler | None = getattr(self._app, "cohort", None)
        try:
            if cohort is not None:
                return list(cohort(messages, contexts))
            return [self._call(m, c) for m, c in zip(messages, contexts, strict=True)]
        finally:
            self._settle()

    def _settle(self) -> None:
        """Keep what clients left in their contexts, and let the contexts go."""
        for node_id, (context, lent) in self._open.items():
            site, record = self._nodes.sites[node_id], context.state.get(STATE)
            if record is not lent:
                self._states.put(site, export_state(context))
            if isinstance(record, ArrayRecord):
                del context.state[STATE]
            if context.state:
                self._records[site] = context.state
        self._open.clear()
        self._states.trim()

    def _call(self, message: Message, context: Context) -> Message:
        return guarded(lambda: self._app(message, context), message, context)

"""The engine in this process: a Flower ``Grid`` that calls the ClientApp itself.

Node ids come from the run's seed, every node keeps its ``Context`` from message to message,
a client's exception becomes an error reply and leaves its former state, and arrays are
shared read-only between server and clients (see ``fedalt.wire.arrays``). A ClientApp that
offers ``cohort(messages, contexts)`` is given all messages of a push at once, so that it can
decode a broadcast once and run many clients as one batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count

import numpy as np
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedalt.errors import ConfigError
from fedalt.grids.state import export_state, guarded, import_state
from fedalt.seeds import Seeds

RunConfig = Mapping[str, bool | int | float | str]
CohortHandler = Callable[[Sequence[Message], Sequence[Context]], Sequence[Message]]


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
    """

    def __init__(
        self,
        client_app: ClientApp,
        num_nodes: int,
        run_config: RunConfig,
        seeds: Seeds,
        run_id: int = 1,
    ) -> None:
        if num_nodes < 1:
            raise ConfigError(f"a federation needs at least one client, not {num_nodes}")
        self._app = client_app
        self._run_config = dict(run_config)
        self._node_ids = _node_ids(num_nodes, seeds)
        self._index = {node: i for i, node in enumerate(self._node_ids)}
        self._contexts: dict[int, Context] = {}
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
        return list(self._node_ids)

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
        """Return a node's Context, made when first asked for."""
        if node_id not in self._contexts:
            index = self._index[node_id]
            self._contexts[node_id] = Context(
                run_id=self._run.run_id,
                node_id=node_id,
                node_config={"partition-id": index, "num-partitions": len(self._node_ids)},
                state=RecordDict(),
                run_config=dict(self._run_config),
            )
        return self._contexts[node_id]

    def export_states(self) -> dict[int, dict[str, np.ndarray]]:
        """Return the persistent arrays of every site that holds any, by site index."""
        states = {}
        for node_id, context in self._contexts.items():
            arrays = export_state(context)
            if arrays:
                states[self._index[node_id]] = arrays
        return dict(sorted(states.items()))

    def import_states(self, states: Mapping[int, Mapping[str, np.ndarray]]) -> None:
        """Replace every site's persistent arrays, as a resumed run does."""
        self._contexts.clear()
        for index, arrays in states.items():
            import_state(self.context(self._node_ids[index]), arrays)

    def _execute(self, batch: Sequence[Message]) -> Iterable[Message]:
        unknown = [m for m in batch if m.metadata.dst_node_id not in self._index]
        for message in unknown:
            reason = f"node {message.metadata.dst_node_id} is not part of this federation"
            yield Message(Error(ErrorCode.NODE_UNAVAILABLE, reason), reply_to=message)
        known = [m for m in batch if m.metadata.dst_node_id in self._index]
        contexts = [self.context(m.metadata.dst_node_id) for m in known]
        cohort: CohortHandler | None = getattr(self._app, "cohort", None)
        if cohort is not None:
            yield from cohort(known, contexts)
        else:
            for message, context in zip(known, contexts, strict=True):
                yield self._call(message, context)

    def _call(self, message: Message, context: Context) -> Message:
        return guarded(lambda: self._app(message, context), message, context)


def _node_ids(num_nodes: int, seeds: Seeds) -> list[int]:
    """Draw distinct positive 63-bit ids, other than those Flower reserves."""
    rng = seeds.at("node-ids").numpy()
    ids: dict[int, None] = {}
    while len(ids) < num_nodes:
        for value in rng.integers(2**16, 2**63 - 1, size=num_nodes - len(ids)):
            ids[int(value)] = None
    return list(ids)

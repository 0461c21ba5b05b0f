"""The messages of a secure aggregation's steps: who is asked, what came back, who fell out.

One step is one exchange. What is read is checked, a site that breaks a rule is lost to the sum
from then on, and a step that fewer sites than the threshold answer ends the phase.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from fedalt.errors import QuorumError, WireError
from fedalt.secagg.messages import SECAGG, Keys, Masked, Sealed, Session, Shares
from fedalt.server.admission import Refused
from fedalt.server.round import NOBODY, Dispatch, Federation
from fedalt.server.stopwatch import Stopwatch
from fedalt.wire.messages import broadcast

Answer = TypeVar("Answer")
Reader = Callable[[int, RecordDict], Answer]
"""Reads what a site answered; raises :class:`WireError` for what breaks a rule."""


@dataclass
class Talk:
    """A phase's exchanges with the sites that its messages address."""

    federation: Federation
    part: Dispatch
    threshold: int
    watch: Stopwatch
    refused: list[Refused] = field(default_factory=list)
    bytes_down: int = 0
    bytes_up: int = 0

    @property
    def session(self) -> Session:
        """Which sum it is about."""
        expected = self.part.expected
        return Session(expected.run_id, expected.round, expected.phase)

    @property
    def nodes(self) -> dict[int, int]:
        """Site index to node id, ascending, of those that the strategy addressed."""
        asked = (message.metadata.dst_node_id for message in self.part.messages)
        return dict(sorted((self.part.places[node], node) for node in asked))

    def tell(self, step: str, content: RecordDict, sites: Iterable[int]) -> list[Message]:
        """Return messages of one content to several sites."""
        nodes = self.nodes
        return broadcast(content, f"train.{step}", [nodes[site] for site in sites])

    def ask(
        self, messages: Sequence[Message], what: str, reader: Reader[Answer]
    ) -> dict[int, Answer]:
        """Exchange a step's messages; return what was read of each site, ascending.

        ``what`` says what sites have done that answered. Raises :class:`QuorumError` if fewer
        than the threshold did.
        """
        for message in messages:
            message.metadata.group_id = f"{self.part.expected.round}/{self.part.phase.name}"
        self.bytes_down += sum(_size(message.content) for message in messages)
        grid, timeout = self.federation.grid, self.federation.timeout
        with self.watch.span("compute"):
            replies = list(grid.send_and_receive(messages, timeout=timeout))
        with self.watch.span("admission"):
            found = self._read(messages, replies, what, reader)
        if len(found) < self.threshold:
            raise self.too_few(f"{len(found)} of {len(self.part.messages)} sites {what}")
        return dict(sorted(found.items()))

    def _read(
        self,
        messages: Sequence[Message],
        replies: Iterable[Message],
        what: str,
        reader: Reader[Answer],
    ) -> dict[int, Answer]:
        """Read each site's first answer; whoever gave none that can be read is lost."""
        asked = {m.metadata.message_id: m.metadata.dst_node_id for m in messages}
        places = self.part.places
        found: dict[int, Answer] = {}
        heard: set[int] = set()
        for reply in replies:
            told = reply.metadata
            node = asked.get(told.reply_to_message_id)
            if node is None or (reply.has_content() and told.src_node_id != node):
                reason = f"node {told.src_node_id} answers for another node, or what nobody asked"
                self._refuse(places.get(told.src_node_id, NOBODY), "asked", reason)
                continue
            site = places[node]
            if site in heard:
                self._refuse(site, "once", f"a second answer from a site that has {what}")
                continue
            heard.add(site)
            if reply.has_error():
                self._refuse(site, "answered", reply.error.reason or "it gave no reason")
                continue
            self.bytes_up += _size(reply.content)
            try:
                found[site] = reader(site, reply.content)
            except WireError as error:
                self._refuse(site, "readable", f"it has not {what}: {error}")
        for node in asked.values():
            if places[node] not in heard:
                self._refuse(places[node], "answered", f"it was silent and has not {what}")
        return found

    def check(self, site: int, answer: Keys | Sealed | Masked | Shares) -> None:
        """Raise :class:`WireError` for an answer about another sum, or in another's name."""
        told = (answer.run_id, answer.round, answer.phase, answer.site)
        wanted = (*self.session.names(), site)
        if told != wanted:
            raise WireError(f"it answers (run, round, phase, site) {told}, asked was {wanted}")

    def too_few(self, what: str) -> QuorumError:
        """Return the error that says what a sum lacks."""
        spec = self.part.phase.privacy
        dropouts = 0.0 if spec is None else spec.dropouts
        reasons = "".join(
            f"\n  site {item.site} ({item.rule}): {item.reason.strip().splitlines()[-1]}"
            for item in self.refused[:3]
        )
        return QuorumError(
            f"round {self.part.expected.round}, phase '{self.part.phase.name}': {what}, a secure "
            f"sum needs {self.threshold} (privacy.dropouts={dropouts:g}); nothing was unmasked"
            f"{reasons}"
        )

    def _refuse(self, site: int, rule: str, reason: str) -> None:
        self.refused.append(Refused(site, rule, reason))


def _size(content: RecordDict) -> int:
    """Bytes of a message's arrays and of what secure aggregation adds, without encoding them."""
    total = 0
    for key, record in content.items():
        if isinstance(record, ArrayRecord):
            total += sum(
                math.prod(array.shape) * np.dtype(array.dtype).itemsize for array in record.values()
            )
        elif key == SECAGG and isinstance(record, ConfigRecord):
            total += sum(_bytes(value) for value in record.values())
    return total


def _bytes(value: object) -> int:
    if isinstance(value, list):
        return sum(_bytes(item) for item in value)
    return len(value) if isinstance(value, bytes | str) else 8

"""One secure round among real clients, and grids that listen in or lose sites."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

from fedalt.alternation.block import BlockMap
from fedalt.alternation.phase import Phase
from fedalt.alternation.privacy_spec import PrivacySpec
from fedalt.clients.app import SiteApp
from fedalt.grids.local import LocalGrid
from fedalt.privacy.central import contribution_weight
from fedalt.privacy.clipping import bounded_groups, clip_groups
from fedalt.privacy.noise import noise_generator
from fedalt.secagg.lattice import Lattice, lattice_of
from fedalt.secagg.messages import CALL, MASK, SHARE, UNMASK
from fedalt.seeds import Seeds
from fedalt.server.round import Dispatch, Federation, collect, dispatch
from fedalt.server.secure import SecureSum, collect_secure
from fedalt.server.strategies.blockwise import Blockwise

ACTIONS = (CALL, SHARE, MASK, UNMASK)
RUN = "run-1"
SEED = 3
Change = Callable[[str, int, Message], Iterable[Message]]
"""From a step's action, a site and its reply to what the server hears."""


class Wire(LocalGrid):
    """The local engine, whose replies can be recorded and changed on their way."""

    def __init__(self, task: Any, change: Change | None = None, app: Any = None) -> None:
        self.app = app or SiteApp(lambda spec: task)
        seeds = Seeds(SEED)
        super().__init__(self.app, len(task.sites), {"task": "{}"}, seeds, sites=task.sites)
        self.change = change
        self.sent: list[tuple[str, int, Message]] = []
        self.heard: list[tuple[str, int, Message]] = []

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        batch = list(messages)
        replies = list(super().send_and_receive(batch, timeout=timeout))
        found: list[Message] = []
        for message, reply in zip(batch, replies, strict=True):
            action = message.metadata.message_type.removeprefix("train.")
            site = self._nodes.sites[message.metadata.dst_node_id]
            self.sent.append((action, site, message))
            for one in self.change(action, site, reply) if self.change else [reply]:
                self.heard.append((action, site, one))
                found.append(one)
        return found


def lose(where: Mapping[str, Sequence[int]]) -> Change:
    """Lose the replies of some sites at some steps."""

    def change(action: str, site: int, reply: Message) -> list[Message]:
        return [] if site in where.get(action, ()) else [reply]

    return change


def fail(reply: Message) -> Message:
    """Return an error in place of a reply."""
    error = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "the site went down")
    failed = Message.__new__(Message)
    failed.__dict__.update(_metadata=reply.metadata, _content=None, _error=error)
    return failed


def phase_of(**spec: Any) -> Phase:
    """Return a phase under secure aggregation whose noise follows from the seed."""
    known = {"trust": "distributed", "rng": "seeded", "clip": 0.5, "noise": 2.0}
    private = PrivacySpec(**{**known, **spec})
    return Phase("train", batch_size=10_000, params={"lr": 0.1}, privacy=private)


def federation(task: Any, grid: Wire, timeout: float | None = None) -> Federation:
    """Return the federation of a task."""
    arrays = task.initial_arrays(Seeds(SEED))
    blocks = BlockMap.of(arrays, task.blocks)
    table = grid.describe()
    assert table is not None
    return Federation(RUN, SEED, grid, table[1], blocks, 1.0, timeout)


def sent(task: Any, grid: Wire, phase: Phase, number: int = 1) -> tuple[Federation, Dispatch]:
    """Return a federation, and a phase on its way to all of its sites."""
    fed = federation(task, grid)
    model = task.initial_arrays(Seeds(SEED))
    return fed, dispatch(fed, number, phase, list(task.sites), Blockwise(), model)


def secure(task: Any, grid: Wire, phase: Phase, number: int = 1) -> SecureSum:
    """Run one secure round."""
    return collect_secure(*sent(task, grid, phase, number))


def vectors(task: Any, phase: Phase, number: int = 1) -> tuple[Lattice, list[np.ndarray]]:
    """Return a sum's integers and what each site adds to them, had no one masked anything."""
    spec = phase.privacy
    assert spec is not None
    fed, part = sent(task, Wire(task), replace(phase, privacy=None), number)
    ((admitted, _),), _ = collect(fed, [part])
    model = task.initial_arrays(Seeds(SEED))
    groups = bounded_groups(spec, list(model), fed.blocks.members)
    shapes = {name: np.shape(values) for name, values in model.items()}
    lattice = lattice_of(spec, groups, shapes, len(task.sites))
    found = []
    for item in admitted:
        update = {name: item.reply.arrays[name] - old for name, old in model.items()}
        clipped = clip_groups(update, groups).arrays
        weight = contribution_weight(spec, item.reply.report.num_examples)
        place = Seeds(SEED).at("round", number, "phase", phase.name, "client", item.site)
        weighted = {name: weight * values for name, values in clipped.items()}
        found.append(lattice.encode(weighted, noise_generator(spec.rng, place)))
    return lattice, found

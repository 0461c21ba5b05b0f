"""Secure aggregation through real clients: the sum is exact, lost sites do not spoil it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from federations import LeastSquares
from flwr.app import ConfigRecord, Message, RecordDict
from secagg_rounds import (
    ACTIONS,
    Change,
    Wire,
    fail,
    lose,
    phase_of,
    secure,
    sent,
    vectors,
)

from fedalt.clients.app import SiteApp
from fedalt.errors import ConfigError, QuorumError
from fedalt.secagg.messages import CALL, MASK, SECAGG, SHARE, UNMASK, VECTOR
from fedalt.server.round import collect, dispatch
from fedalt.server.secure import SecureSum, collect_secure
from fedalt.server.strategies.blockwise import Blockwise
from fedalt.wire.arrays import record_of

TASK = LeastSquares(6)
PHASE = phase_of(dropouts=0.4)
"""Four of six are enough."""


def expected(sites: Iterable[int], task: Any = TASK, phase: Any = PHASE) -> dict[str, np.ndarray]:
    lattice, found = vectors(task, phase)
    total = np.zeros(lattice.size, lattice.dtype)
    for site in sites:
        total = total + found[site]
    return lattice.decode(total)


def assert_sum(
    found: SecureSum, sites: Iterable[int], task: Any = TASK, phase: Any = PHASE
) -> None:
    wanted = expected(sites, task, phase)
    assert found.sites == tuple(sites)
    assert list(found.total) == list(wanted)
    for name, values in wanted.items():
        assert found.total[name].dtype == np.float64
        np.testing.assert_array_equal(found.total[name], values)


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"weight_cap": 16.0},
        {"clips": {"slope": 0.5, "offset": 0.01}},
        {"noise": 1e-6, "clip": 3.0},
    ],
)
def test_masks_cancel_to_the_last_bit(spec: dict[str, Any]) -> None:
    phase = phase_of(**spec)
    found = secure(TASK, Wire(TASK), phase)
    assert_sum(found, range(6), phase=phase)
    assert found.refused == () and found.steps == 0


def test_another_order_of_arrival_changes_nothing() -> None:
    class Backwards(Wire):
        def send_and_receive(self, messages: Any, *, timeout: Any = None) -> list[Message]:
            return super().send_and_receive(messages, timeout=timeout)[::-1]

    assert_sum(secure(TASK, Backwards(TASK), PHASE), range(6))


@pytest.mark.parametrize("step", ACTIONS)
@pytest.mark.parametrize("lost", [(0,), (5,), (1, 4)])
def test_sites_lost_at_any_step_do_not_spoil_the_sum(step: str, lost: tuple[int, ...]) -> None:
    found = secure(TASK, Wire(TASK, lose({step: lost})), PHASE)
    # Whose masked vector has come is in the sum, wherever it is then.
    left = [s for s in range(6) if s not in lost or step == UNMASK]
    assert_sum(found, left)
    assert {item.site for item in found.refused} == set(lost)


def test_every_pair_of_steps_may_lose_one_site_each() -> None:
    for first, second in combinations(ACTIONS, 2):
        found = secure(TASK, Wire(TASK, lose({first: [3], second: [0]})), PHASE)
        assert_sum(found, [s for s in range(6) if s != 3 and (s != 0 or second == UNMASK)])


@pytest.mark.parametrize("step", ACTIONS)
def test_below_the_threshold_nothing_is_unmasked(step: str) -> None:
    grid = Wire(TASK, lose({step: (0, 2, 3)}))
    with pytest.raises(QuorumError, match=r"3 of 6 sites .* needs 4 .*nothing was unmasked"):
        secure(TASK, grid, PHASE)
    asked = {action for action, _, _ in grid.sent}
    assert asked == set(ACTIONS[: ACTIONS.index(step) + 1])


def test_without_room_for_dropouts_every_site_is_needed() -> None:
    with pytest.raises(QuorumError, match=r"5 of 6 sites sent a masked vector, .* needs 6"):
        secure(TASK, Wire(TASK, lose({MASK: [2]})), phase_of())


@pytest.mark.parametrize("clients", [1, 2])
def test_one_or_two_sites_are_refused(clients: int) -> None:
    task = LeastSquares(clients)
    grid = Wire(task)
    with pytest.raises(ConfigError, match="hides one site among others"):
        secure(task, grid, PHASE)
    assert not grid.sent


def test_a_site_that_fails_is_lost_and_says_why() -> None:
    def change(action: str, site: int, reply: Message) -> list[Message]:
        return [fail(reply) if (action, site) == (MASK, 4) else reply]

    found = secure(TASK, Wire(TASK, change), PHASE)
    assert_sum(found, [0, 1, 2, 3, 5])
    assert "went down" in found.refused[0].reason


def test_a_site_whose_training_diverges_is_lost() -> None:
    class Diverging(LeastSquares):
        def loss(self, model: Any, batch: Any) -> Any:
            value, metrics = super().loss(model, batch)
            return (value * float("nan") if len(batch[0]) == self.sizes[2] else value), metrics

    task = Diverging(6)
    found = secure(task, Wire(task), PHASE)
    assert_sum(found, [0, 1, 3, 4, 5])
    assert "the loss is nan" in found.refused[0].reason


def with_content(reply: Message, content: RecordDict) -> Message:
    changed = Message.__new__(Message)
    changed.__dict__.update(_metadata=reply.metadata, _content=content, _error=None)
    return changed


def changed(action: str, who: int, /, **values: Any) -> Change:
    """Change entries of one site's record at one step."""

    def change(step: str, sender: int, reply: Message) -> list[Message]:
        if (step, sender) != (action, who):
            return [reply]
        content = RecordDict(dict(reply.content.items()))
        content[SECAGG] = ConfigRecord({**content[SECAGG], **values})  # type: ignore[dict-item]
        return [with_content(reply, content)]

    return change


@pytest.mark.parametrize(
    ("step", "values", "reason"),
    [
        (CALL, {"sealing": b"short"}, "not of 32 bytes"),
        (CALL, {"masking": 5}, "Keys.masking is missing, or is not bytes"),
        (CALL, {"site": 3}, "asked was"),
        (SHARE, {"boxes": [b"x" * 160] * 4}, "4 boxes, due are 5"),
        (SHARE, {"boxes": [b"x" * 10] * 5}, "5 boxes, due are 5 of 160 bytes"),
        (SHARE, {"round": 2}, "asked was"),
        (SHARE, {"boxes": 7}, "Sealed.boxes"),
        (MASK, {"phase": "other"}, "asked was"),
        (MASK, {"run_id": "other"}, "asked was"),
    ],
)
def test_a_malformed_answer_counts_as_none(step: str, values: dict[str, Any], reason: str) -> None:
    found = secure(TASK, Wire(TASK, changed(step, 2, **values)), PHASE)
    assert_sum(found, [0, 1, 3, 4, 5])
    assert [item.site for item in found.refused] == [2] and reason in found.refused[0].reason


@pytest.mark.parametrize(
    "arrays",
    [
        {VECTOR: np.zeros(3, np.uint32)},
        {VECTOR: np.zeros(5, np.uint32)},
        {VECTOR: np.zeros(4, np.uint64)},
        {VECTOR: np.zeros(4)},
        {VECTOR: np.zeros((2, 2), np.uint32)},
        {VECTOR: np.zeros(4, np.uint32), "more": np.zeros(4, np.uint32)},
        {},
    ],
)
def test_a_vector_of_another_kind_counts_as_none(arrays: dict[str, np.ndarray]) -> None:
    def change(step: str, site: int, reply: Message) -> list[Message]:
        if (step, site) != (MASK, 1):
            return [reply]
        content = RecordDict({**dict(reply.content.items()), "arrays": record_of(arrays)})
        return [with_content(reply, content)]

    found = secure(TASK, Wire(TASK, change), PHASE)
    assert_sum(found, [0, 2, 3, 4, 5])
    assert found.refused[0].rule == "readable"


def test_no_two_answers_count_of_one_site() -> None:
    found = secure(TASK, Wire(TASK, lambda step, site, reply: [reply] * (1 + (site == 3))), PHASE)
    assert_sum(found, range(6))
    assert [(item.site, item.rule) for item in found.refused] == [(3, "once")] * 4


def test_an_answer_in_anothers_name_is_refused() -> None:
    def change(step: str, site: int, reply: Message) -> list[Message]:
        if (step, site) == (MASK, 0):
            reply.metadata.__dict__["_src_node_id"] += 1
        return [reply]

    found = secure(TASK, Wire(TASK, change), PHASE)
    assert_sum(found, [1, 2, 3, 4, 5])
    assert {item.rule for item in found.refused} == {"asked", "answered"}


def test_garbage_among_the_last_shares_is_found_out() -> None:
    wrong = [bytes(66)] * 6
    found = secure(TASK, Wire(TASK, changed(UNMASK, 0, seeds=wrong)), PHASE)
    assert_sum(found, range(6))


def test_boxes_that_one_site_cannot_open_are_done_without() -> None:
    def change(step: str, site: int, reply: Message) -> list[Message]:
        if (step, site) == (SHARE, 2):
            boxes = [bytes(160), *reply.content[SECAGG]["boxes"][1:]]  # type: ignore[index]
            return changed(SHARE, 2, boxes=boxes)(step, site, reply)
        return [] if (step, site) == (MASK, 2) else [reply]

    assert_sum(secure(TASK, Wire(TASK, change), PHASE), [0, 1, 3, 4, 5])


def test_shares_that_make_no_secret_leave_the_sum_masked() -> None:
    change = changed(SHARE, 2, boxes=[bytes(160)] * 5)
    with pytest.raises(QuorumError, match=r"site 2's seed make it not"):
        secure(TASK, Wire(TASK, change), PHASE)


def test_an_instruction_without_secure_aggregation_gets_no_update() -> None:
    fed, part = sent(TASK, Wire(TASK), PHASE)
    ((admitted, refused),), _ = collect(fed, [part])
    assert not admitted and len(refused) == 6
    assert all("by secure aggregation alone" in item.reason for item in refused)


def test_a_site_keeps_its_state_once_it_has_sent_its_vector() -> None:
    task, grid = TASK, Wire(TASK, lose({SHARE: [1], MASK: [4]}))
    fed, _ = sent(task, grid, PHASE)
    fed = replace(fed, local=frozenset({"bias"}))
    model = task.initial_arrays(fed.seeds)
    part = dispatch(fed, 1, PHASE, list(task.sites), Blockwise(), model)
    found = collect_secure(fed, part)
    assert found.sites == (0, 2, 3, 5) and list(found.total) == ["weight"]
    # Site 1 was never asked to train; site 4 did, though its vector was lost on its way.
    assert list(grid.export_states()) == [0, 2, 3, 4, 5]


def test_a_cohort_is_trained_as_one() -> None:
    asked: list[int] = []

    class Counting(SiteApp):
        def _answer(self, messages: Any, contexts: Any) -> Any:
            asked.append(len(messages))
            return super()._answer(messages, contexts)

    assert_sum(secure(TASK, Wire(TASK, app=Counting(lambda spec: TASK)), PHASE), range(6))
    assert asked == [6]


def test_sites_asked_one_by_one_make_the_same_sum() -> None:
    fed, part = sent(TASK, Wire(TASK), PHASE)
    assert_sum(collect_secure(replace(fed, timeout=60.0), part), range(6))


def test_rounds_follow_one_another_whoever_was_lost() -> None:
    grid = Wire(TASK, lose({MASK: [0]}))
    secure(TASK, grid, PHASE)
    grid.change = None
    found = secure(TASK, grid, PHASE, number=2)
    lattice, each = vectors(TASK, PHASE, number=2)
    total = np.add.reduce(each).astype(lattice.dtype)
    assert found.sites == tuple(range(6))
    np.testing.assert_array_equal(found.total["weight"], lattice.decode(total)["weight"])


def test_bytes_are_counted_both_ways() -> None:
    found = secure(TASK, Wire(TASK), PHASE)
    # Keys, 30 boxes of 160 bytes, six vectors of four words, twelve shares a site.
    assert found.bytes_up > 6 * 64 + 30 * 160 + 6 * 16 + 6 * 6 * 66
    assert found.bytes_down > 36 * 64 + 30 * 160 + 6 * 32


def test_what_is_trained_must_be_sent() -> None:
    phase = replace(PHASE, send=("slope",))
    with pytest.raises(QuorumError, match="does not send them"):
        secure(TASK, Wire(TASK), phase)

"""From replies to an aggregate: stacked or apart, in whatever order they come, the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import canned_rounds
import numpy as np
import pytest
from canned_rounds import (
    PHASE,
    SITES,
    Shuffled,
    apart,
    by_hand,
    encoded,
    one_round,
    rows_of,
    same,
    stacks,
)
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp

from fedalt.grids.local import LocalGrid
from fedalt.seeds import Seeds
from fedalt.server.admission import Admitted, Expected, admit
from fedalt.server.round import Federation
from fedalt.server.strategies.blockwise import Blockwise
from fedalt.server.strategies.rules import reduce
from fedalt.wire import content as content_module
from fedalt.wire.arrays import record_of
from fedalt.wire.messages import reply_with
from fedalt.wire.records import make_reply
from fedalt.wire.report import ClientReport


@pytest.mark.parametrize("workspace", [1, 7, 64, 2**18])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rule", ["mean", "sum", "median"])
def test_an_aggregate_depends_on_neither_stacks_nor_order_nor_pieces(
    rule: str, dtype: Any, workspace: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reduce, "_WORKSPACE", workspace)
    rows = rows_of(stacks(dtype))
    expected = by_hand(rule, rows)
    arrays, metrics, _ = one_round(rows, rule)
    assert same(arrays, expected)
    assert same(one_round(apart(rows), rule)[0], expected)
    for change in (lambda site, content: content, encoded):
        shuffled, again, refused = one_round(rows, rule, change, Shuffled)
        assert same(shuffled, expected) and again == metrics and not refused
    mixed = [row if site % 3 else apart(rows)[site] for site, row in enumerate(rows)]
    assert same(one_round(mixed, rule, grid=Shuffled)[0], expected)


def test_the_order_of_additions_would_show() -> None:
    """The test above means something only if another order gives other bits."""
    rows = rows_of(stacks(np.float64))
    backwards = by_hand("sum", rows, range(SITES)[::-1])
    assert not same(by_hand("sum", rows), backwards)


def test_a_sum_works_on_a_bounded_piece_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    empty = np.empty
    monkeypatch.setattr(reduce, "_WORKSPACE", 100)
    monkeypatch.setattr(
        reduce.np, "empty", lambda shape: made.append(int(np.prod(shape))) or empty(shape)
    )
    arrays = [np.full((5, 50), float(k)) for k in range(9)]
    np.testing.assert_array_equal(reduce.ordered_sum(arrays), np.full((5, 50), 36.0))
    assert made and max(made) <= 100


@pytest.mark.parametrize("count", [1, 2, 5, 6])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_the_middle_is_numpys_median(count: int, dtype: Any) -> None:
    values = (np.random.default_rng(count).standard_normal((count, 4, 3)) * 9).astype(dtype)
    for stack in (values, values[:, 0, 0], values[:, :0]):
        wanted = np.median(stack, axis=0)
        found = reduce.middle(stack.copy())
        assert found.dtype == wanted.dtype and found.tobytes() == np.asarray(wanted).tobytes()


def test_the_middle_of_what_is_missing_is_missing() -> None:
    stack = np.ones((3, 3))
    stack[1, 0], stack[0, 1], stack[1, 1] = np.nan, np.inf, -np.inf
    np.testing.assert_array_equal(reduce.middle(stack), [np.nan, 1.0, 1.0])


# --- a round's cost is its cohort's ---------------------------------------------------------


class Unwalked(dict[int, int]):
    """A federation's nodes, which may be looked up but not walked through."""

    def __iter__(self) -> Iterator[int]:
        raise AssertionError("a round walked through all nodes of the federation")

    items = keys = values = __iter__  # type: ignore[assignment]


def test_a_round_does_not_walk_through_the_federation(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Federation.__init__

    def init(self: Federation, *arguments: Any, **named: Any) -> None:
        real(self, *arguments, **named)
        object.__setattr__(self, "nodes", Unwalked(self.nodes))

    monkeypatch.setattr(Federation, "__init__", init)
    rows = rows_of(stacks())
    arrays, _, _ = one_round(rows, cohort=[1, 4, 9])
    assert same(arrays, by_hand("mean", rows, [1, 4, 9]))


def test_admission_sorts_by_site_and_keeps_the_first_of_two() -> None:
    row = rows_of(stacks())[0]
    expected = Expected("run", 1, PHASE.name, row)
    LocalGrid(ClientApp(), 1, {}, Seeds(0))
    asked = Message(RecordDict(), 5, "train")
    answers = [
        (
            s,
            reply_with(
                make_reply(ClientReport("run", 1, PHASE.name, s, 1, 0, 0.0), row, {}), asked
            ),
        )
        for s in (3, 1, 2, 1)
    ]
    admitted, refused = admit(answers, expected)
    assert [item.site for item in admitted] == [1, 2, 3]
    assert isinstance(admitted[0], Admitted) and admitted[0].message is answers[1][1]
    assert [(r.site, r.rule) for r in refused] == [(1, "once")]


def test_what_admission_decoded_the_strategy_does_not_decode_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = {"encode_report": 0, "decode_report": 0}
    for name in calls:
        real = getattr(content_module, name)

        def spy(data: Any, name: str = name, real: Any = real) -> Any:
            calls[name] += 1
            return real(data)

        monkeypatch.setattr(content_module, name, spy)
    one_round(rows_of(stacks()))
    assert calls == {"encode_report": 0, "decode_report": 0}
    one_round(rows_of(stacks()), change=encoded)
    assert calls == {"encode_report": SITES, "decode_report": SITES}


def test_a_strategy_around_blockwise_sees_the_messages_and_may_change_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What admission decoded is handed over only where nobody stands in between."""
    rows = rows_of(stacks())

    def halve(self: Any, number: int, replies: Any) -> Any:
        for message in replies:
            record = message.content["arrays"]
            record.update(record_of({k: v.numpy() / 2 for k, v in record.items()}))
        return Blockwise.aggregate_train(self, number, replies[::-1])

    class Halved(Blockwise):
        aggregate_train = halve  # type: ignore[assignment]

    expected = by_hand("mean", [{k: v / 2 for k, v in row.items()} for row in rows])
    monkeypatch.setattr(canned_rounds, "Blockwise", Halved)
    assert same(one_round(rows)[0], expected)

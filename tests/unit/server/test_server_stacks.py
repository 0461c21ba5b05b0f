"""Admission of replies that share stacks: looked at together, refused one by one."""

from __future__ import annotations

import numpy as np
import pytest
from canned_rounds import (
    PHASE,
    SHAPES,
    SITES,
    Shuffled,
    apart,
    by_hand,
    one_round,
    rows_of,
    same,
    stacks,
)
from flwr.app import ConfigRecord, RecordDict

from fedalt.server import finite
from fedalt.server.finite import FiniteStacks, all_finite
from fedalt.wire.report import ClientReport, encode_report


def test_stacks_are_looked_at_once_and_what_lies_apart_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[int, ...]] = []
    look = finite.all_finite

    def spy(values: np.ndarray) -> bool:
        seen.append(values.shape)
        return look(values)

    monkeypatch.setattr(finite, "all_finite", spy)
    rows = rows_of(stacks())
    table = FiniteStacks(rows)
    assert sorted(seen) == sorted((SITES, *shape) for shape in SHAPES.values())
    assert all(table.holds(values) for row in rows for values in row.values())
    seen.clear()
    FiniteStacks(apart(rows_of(stacks())))
    assert not seen, "an array of its own is looked at by admission itself"


def test_a_stack_much_larger_than_its_replies_is_left_alone() -> None:
    """A cohort's buffer may hold more rows than were asked, and anything in them."""
    buffer = np.zeros((100, 5))
    buffer[50:] = np.nan
    few = [{"w": buffer[k]} for k in range(3)]
    assert not any(FiniteStacks(few).holds(row["w"]) for row in few)
    spare = np.zeros((5, 4))
    spare[4] = np.nan
    most = [{"w": spare[k]} for k in range(4)]
    assert not any(FiniteStacks(most).holds(row["w"]) for row in most)
    spare[4] = 1.0
    assert all(FiniteStacks(most).holds(row["w"]) for row in most)
    other = [{"w": spare.view(np.int64)[k].view(np.float32)} for k in range(4)]
    assert not any(FiniteStacks(other).holds(row["w"]) for row in other), "another type's bits"


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f8", "c16"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_seen_in_any_place(dtype: str, bad: float) -> None:
    for place in (0, 11, 23):
        values = np.ones((4, 6), dtype)
        assert all_finite(values) and all_finite(values.T) and all_finite(values[:, ::2])
        values.flat[place] = bad
        assert not all_finite(values) and not all_finite(values.T)
    assert all_finite(np.array([3, 4])) and all_finite(np.array([True])) and all_finite(np.ones(()))
    huge = np.full(3, np.finfo(dtype).max, dtype)
    assert all_finite(huge), "large is not infinite, though its square is"


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_row_of_a_stack_is_refused_by_itself(name: str, bad: float) -> None:
    made = stacks()
    made[name][4, ...].reshape(-1)[-1:] = bad
    made[name][11, ...] = bad
    arrays, _, refused = one_round(rows_of(made), grid=Shuffled)
    assert [(r.site, r.rule) for r in refused] == [(4, "finite"), (11, "finite")]
    assert f"'{name}' holds 1 values that are not finite" in refused[0].reason
    others = [site for site in range(SITES) if site not in (4, 11)]
    assert same(arrays, by_hand("mean", rows_of(made), others))
    alone, _, _ = one_round(rows_of(made), cohort=others)
    assert same(arrays, alone), "as if the two had not been asked"


def test_rows_of_a_stack_pass_every_other_rule_singly() -> None:
    """Another's row, a row of another shape or type: each is judged as if it came alone."""
    made = stacks()
    rows = rows_of(made)
    rows[2]["w"] = made["w"][2].reshape(40, 3)
    rows[3]["w"] = made["w"].view(np.int32)[3]
    rows[5]["w"] = made["w"]

    def report(site: int, content: RecordDict) -> RecordDict:
        if site == 7:
            told = ClientReport("run", 1, PHASE.name, 8, 22, 6, 0.0)
            content["fedalt"] = ConfigRecord({"report": encode_report(told)})
        return content

    _, _, refused = one_round(rows, change=report, grid=Shuffled)
    found = {(r.site, r.rule) for r in refused}
    assert found == {(2, "shaped"), (3, "shaped"), (5, "shaped"), (7, "addressed")}

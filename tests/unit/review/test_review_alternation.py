"""Alternation where a mistake would be silent: shares, views, values that change, lost work."""

from __future__ import annotations

import numpy as np
import pytest

from fedalt.alternation import (
    Block,
    BlockMap,
    History,
    Phase,
    Planner,
    Schedule,
    Selector,
    Site,
    View,
    adaptive,
    chain,
    exponentiated,
    fork,
    linear,
    nest,
    parallel,
    power_law,
    ramp,
    repeat,
    when,
)
from fedalt.errors import ScheduleError
from fedalt.seeds import Seeds

SITES = [Site(i, f"site-{i}", 10, {"modality": "ct" if i % 2 else "mr"}) for i in range(100)]
BLOCKS = BlockMap.of(
    ["body.w", "head.w"],
    [Block("body", ("body/*",)), Block("head", ("head/*",)), Block("ends", ("*/w",))],
)


def first_round(schedule: Schedule | Phase, blocks: BlockMap | None = None) -> list[Phase]:
    plan = Planner(schedule, 0, SITES, blocks).plan(1, History())
    assert plan is not None
    return [part.phase for part in plan.parts]


@pytest.mark.parametrize(
    ("rate", "count"), [(0.07, 7), (0.55, 55), (0.14, 14), (0.071, 8), (1e-12, 1), (1.0, 100)]
)
def test_a_fraction_is_not_rounded_up_by_floating_point(rate: float, count: int) -> None:
    assert len(Selector("fraction", rate=rate).draw(SITES, Seeds(0).numpy())) == count


def test_eligible_sites_come_by_index_whatever_the_tests() -> None:
    mixed = SITES[::-1]
    tests = Selector(where={"modality": ("ct",)}, unless=({"modality": ("mr",)},))
    assert [s.index for s in tests.eligible(mixed)] == list(range(1, 100, 2))
    assert [s.index for s in Selector().eligible(mixed)] == list(range(100))


def test_an_index_from_numpy_is_the_same_label() -> None:
    assert Seeds(0).at(np.int64(5)).integer() == Seeds(0).at(5).integer()
    assert Seeds(0).at(5).integer() != Seeds(0).at("5").integer()


def test_a_local_nest_restricts_the_rows_once() -> None:
    (outer,) = first_round(nest(Phase("o", view=View(0.5)), Phase("i"), local=True))
    assert outer.view == View(0.5)
    assert outer.inner[0].view == View(), "a part of the outer view, which is all of it"


def test_a_ramp_over_a_local_nest_reaches_the_inner_phases() -> None:
    outer = Phase("o", params={"lr": 0.1})
    planner = Planner(
        ramp(repeat(nest(outer, Phase("i"), local=True), 3), lr=linear(1, 3, 3)), 0, SITES
    )
    history = History()
    for number in (1, 2, 3):
        plan = planner.plan(number, history)
        assert plan is not None
        (phase,) = [part.phase for part in plan.parts]
        # The client takes the outer params where the inner phase sets none itself.
        assert {**phase.params, **phase.inner[0].params} == {"lr": float(number)}
        history = history.append({})


@pytest.mark.parametrize(
    "schedule",
    [
        parallel(Phase("a"), Phase("b")),
        parallel(Phase("a", train=("body",)), Phase("b", train=("ends",))),
        when({"modality": "ct"}, Phase("a"), Phase("b"), level="client"),
        fork(u=parallel(Phase("a"), Phase("b"))),
    ],
)
def test_two_phases_of_a_round_may_not_train_one_array(schedule: Schedule) -> None:
    with pytest.raises(
        ScheduleError, match=r"round 1: phases 'a.*' and 'b.*' both train the array"
    ):
        first_round(schedule, BLOCKS)


@pytest.mark.parametrize(
    "schedule",
    [
        parallel(Phase("a", train=("body",)), Phase("b", train=("head",))),
        parallel(
            Phase("a", train=("body",)), Phase("b", train=("ends",), aggregate={"ends": "keep"})
        ),
        fork(u=Phase("a"), v=Phase("a")),
        chain(Phase("a"), Phase("b")),
    ],
)
def test_phases_apart_may_share_a_round(schedule: Schedule) -> None:
    assert first_round(schedule, BLOCKS)


@pytest.mark.parametrize("key", ["epochs", "steps", "batch_size"])
@pytest.mark.parametrize("value", [1.5, True, "3", 2**32])
def test_counts_are_whole_numbers(key: str, value: object) -> None:
    with pytest.raises(ScheduleError, match=f"{key} is .* whole number"):
        Phase.from_dict({"name": "a", key: value})


def test_a_diverging_metric_does_not_stop_an_adaptive_schedule() -> None:
    history = History(({"a/loss": 1e308, "b/loss": 1.0}, {"a/loss": 1e308, "b/loss": 2.0}))
    items = adaptive(Phase("a"), Phase("b"), policy=exponentiated("loss", 1.0))
    np.testing.assert_array_equal(items.probabilities(history), [1.0, 0.0])


@pytest.mark.filterwarnings("ignore:power_law")
def test_power_law_with_a_large_exponent_still_draws() -> None:
    planner = Planner(
        power_law(Phase("a"), Phase("b"), exponent=400, offset=10, p_new=0.01), 0, SITES
    )
    history = History()
    for number in range(1, 6):
        assert planner.plan(number, history) is not None
        history = history.append({})


def test_a_param_may_have_any_name() -> None:
    assert Phase("a").with_params(self=1).params == {"self": 1}


def test_a_metric_with_a_slash_is_found_under_its_new_name() -> None:
    history = History(({"p@u/acc/top1": 0.5, "q/r@u/loss": 0.25, "server/loss": 1.0},))
    inside = history.renamed(suffix="@u")
    assert inside.last("p/acc/top1") == 0.5
    assert inside.values("q/r/loss") == (0.25,)
    assert inside.last("server/loss") == 1.0
    assert inside.last("p/loss") is None

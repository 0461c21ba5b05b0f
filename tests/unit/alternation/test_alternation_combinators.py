"""What each combinator does, on small cases worked out by hand."""

from __future__ import annotations

import itertools

import pytest
from alternation_toys import names, unroll

from fedalt.alternation import (
    History,
    Phase,
    Selector,
    above,
    all_of,
    any_of,
    below,
    chain,
    choose,
    cosine,
    curriculum,
    cycle,
    exponential,
    fits,
    fork,
    linear,
    nest,
    not_,
    parallel,
    plateau,
    ramp,
    repeat,
    rounds,
    steps,
    sweep,
    until,
    when,
)
from fedalt.errors import ScheduleError

A, B, C, D = (Phase(name) for name in "abcd")


def test_until_stops_as_soon_as_its_condition_holds() -> None:
    course = {1: 9.0, 2: 5.0, 3: 0.5, 4: 0.5}
    schedule = chain(until(A, below("loss", 1.0)), B)
    assert names(schedule, metrics=lambda r: {"loss": course[r]}) == ["a", "a", "a", "b"]


def test_until_counts_from_where_it_began() -> None:
    """The loss is low from round 1 on, but only rounds since its beginning count."""
    schedule = chain(A, A, until(B, below("loss", 1.0)), C)
    assert names(schedule, metrics=lambda r: {"loss": 0.1}) == ["a", "a", "b", "c"]


def test_until_does_no_more_than_its_most_rounds() -> None:
    assert names(until(chain(A, B), below("loss", 0), max_rounds=5)) == ["a", "b", "a", "b", "a"]
    nan = float("nan")
    stopped = until(A, any_of(below("loss", 1), above("loss", 1)), max_rounds=4)
    assert len(names(stopped, metrics=lambda r: {"loss": nan})) == 4


def test_until_begins_anew_in_a_cycle() -> None:
    assert names(cycle(until(A, rounds(2)), B), 6) == ["a", "a", "b", "a", "a", "b"]


def test_when_decides_each_round_and_keeps_places() -> None:
    parts = [chain(*(Phase(f"{n}{i}") for i in range(3))) for n in "xy"]
    schedule = when(above("loss", 1.0), *parts)
    course = {1: 0, 2: 2, 3: 0, 4: 2, 5: 2}
    # Round 1: nothing measured yet, so no; then by the newest value. x ends first.
    found = names(schedule, metrics=lambda r: {"loss": course[r]})
    assert found == ["y0", "y1", "x0", "y2"]


def test_when_in_a_cycle_decides_each_pass() -> None:
    schedule = cycle(when(above("loss", 1.0), A, B), C)
    metrics = {1: {}, 2: {"loss": 2.0}, 3: {}, 4: {"loss": 0.0}}
    assert names(schedule, 5, metrics=lambda r: metrics.get(r, {})) == ["b", "c", "a", "c", "b"]


def test_when_splits_clients() -> None:
    first, second = unroll(when(fits(modality="ct"), chain(A, B), C, level="client"))
    assert [p.name for p in first] == ["a", "c"]
    assert [p.clients.where for p in first] == [{"modality": ("ct",)}, {}]
    assert [p.clients.unless for p in first] == [(), ({"modality": ("ct",)},)]
    assert [p.name for p in second] == ["b"]
    assert names(when({"tag": ["x", "y"]}, A, level="client")) == ["a"]


def test_fork_keeps_results_apart() -> None:
    (phases,) = unroll(fork(u=A, v=fork(w=A)))
    assert [(p.name, p.branch) for p in phases] == [("a@u", "u"), ("a@w@v", "v/w")]


def test_renamed_phases_answer_to_their_old_names() -> None:
    """Within a nest and a fork, a condition names a phase as it was written."""
    inner = until(A, below("a/loss", 1.0), max_rounds=9)
    metrics = {1: {"o.a@u/loss": 2.0}, 2: {"o.a@u/loss": 0.5, "a/loss": 7.0}}
    schedule = nest(Phase("o"), fork(u=inner))
    assert names(schedule, metrics=lambda r: metrics.get(r, {})) == ["o.a@u", "o.a@u"]


def test_old_names_hold_through_renames_within_renames() -> None:
    inner = until(A, below("a/loss", 1.0), max_rounds=9)
    schedule = nest(Phase("p"), nest(Phase("o"), fork(u=fork(v=inner))))
    name = "p.o.a@v@u"
    assert names(schedule, metrics=lambda r: {f"{name}/loss": 2.0 - r}) == [name, name]


def test_nest_is_a_product_and_narrows() -> None:
    ct = Selector(where={"modality": ("ct",)})
    outer = [
        Phase("ct", clients=ct, modality="ct", task="t", params={"lr": 1, "k": 2}),
        Phase("mr"),
    ]
    own = Phase("e", task="own", params={"lr": 9}, train=("encoder",))
    found = unroll(nest(chain(*outer), repeat(chain(own, B), 2)))
    assert [p[0].name for p in found] == ["ct.e", "ct.b"] * 2 + ["mr.e", "mr.b"] * 2
    inner = found[0][0]
    assert (inner.clients, inner.modality, inner.task) == (ct, "ct", "own")
    assert (inner.params, inner.train) == ({"lr": 9, "k": 2}, ("encoder",))
    assert found[4][0].clients == Selector()


def test_nest_under_several_phases_runs_side_by_side() -> None:
    assert names(nest(parallel(A, B), chain(C, D))) == ["a.c+b.c", "a.d+b.d"]
    branch = unroll(nest(fork(u=A), C))[0][0].branch
    assert branch == "u"


def test_local_nest_is_one_phase() -> None:
    found = unroll(nest(chain(A, Phase("o", task="t")), repeat(chain(C, D), 2), local=True))
    assert [p[0].name for p in found] == ["a", "o"]
    assert [[i.name for i in p[0].inner] for p in found] == [["c", "d", "c", "d"]] * 2
    assert {i.task for i in found[1][0].inner} == {"t"}
    # Draws within one round come from different places: not the same item 30 times over.
    drawn = unroll(nest(A, until(choose(C, D), rounds(99), max_rounds=30), local=True))[0][0].inner
    assert {p.name for p in drawn} == {"c", "d"}


def test_sweep_does_each_value_once() -> None:
    found = unroll(sweep("task", ["u", "v"], chain(A, B)))
    assert [(p[0].name, p[0].task) for p in found] == [
        ("a", "u"),
        ("b", "u"),
        ("a", "v"),
        ("b", "v"),
    ]
    swept = unroll(sweep(["tag", "params.lr"], ["1", "2"], A))
    assert [p[0].clients.where for p in swept] == [{"tag": ("1",)}, {"tag": ("2",)}]
    assert [p[0].params for p in swept] == [{"lr": "1"}, {"lr": "2"}]


def test_sweep_shuffles_by_the_seed() -> None:
    values = list(range(12))
    orders = [
        [p[0].params["k"] for p in unroll(sweep("params.k", values, A, "shuffled"), seed=seed)]
        for seed in (1, 1, 2)
    ]
    assert orders[0] == orders[1] != orders[2]
    assert all(sorted(order) == values != order for order in orders)


@pytest.mark.parametrize("curve", [linear(3, 1, 6), cosine(3, 1, 6), exponential(3, 1, 6)])
def test_ramp_goes_from_end_to_end_and_stays(curve: object) -> None:
    found = [p[0].params["lr"] for p in unroll(ramp(cycle(A), lr=curve), 9)]  # type: ignore[arg-type]
    assert found[0] == 3 and found[5:] == [1, 1, 1, 1]
    assert all(old > new for old, new in itertools.pairwise(found[:6]))


def test_ramp_values() -> None:
    assert [linear(0, 4, 5).at(k) for k in range(5)] == [0, 1, 2, 3, 4]
    assert cosine(0, 1, 5).at(1) == pytest.approx((1 - 2**-0.5) / 2)
    assert exponential(1, 1e-4, 5).at(1) == pytest.approx(0.1)
    assert linear(5, 7, 1).at(0) == 7
    found = unroll(ramp(cycle(A), {"view.fraction": linear(0.5, 1, 3)}, epochs=linear(1, 4, 4)), 3)
    assert [(p[0].view.fraction, p[0].epochs) for p in found] == [(0.5, 1), (0.75, 2), (1.0, 3)]


def test_curriculum_holds_values() -> None:
    found = unroll(curriculum(chain(cycle(A)), lr={2: 0.1, 4: 0.2}, task={0: "easy", 3: "hard"}), 5)
    assert [p[0].params.get("lr") for p in found] == [None, None, 0.1, 0.1, 0.2]
    assert [p[0].task for p in found] == ["easy"] * 3 + ["hard"] * 2
    assert steps({3: "y", 0: "x"}).values == ((0, "x"), (3, "y"))


def history(*values: float | None) -> History:
    return History(tuple({} if v is None else {"m": v} for v in values))


NAN = float("nan")


@pytest.mark.parametrize(
    ("condition", "values", "answer"),
    [
        (below("m", 1), [2, 0.5], True),
        (below("m", 1), [0.5, None], True),
        (below("m", 1), [0.5, 1.0], False),
        (below("m", 1), [], None),
        (below("m", 1), [0.5, NAN], None),
        (above("m", 1), [2], True),
        (above("m", 1), [1.0], False),
        (above("m", 1), [float("inf")], True),
        (plateau("m", 0.1, 2), [5, 1.0, 1.05, 1.0], True),
        (plateau("m", 0.1, 2), [1.0, 1.5, 1.5], False),
        (plateau("m", 0.1, 2), [1.0, 1.0], False),
        (plateau("m", 0.1, 1), [0.0, 0.0], True),
        (plateau("m", 0.1, 1), [1.0, NAN], None),
        (plateau("m", 0.1, 1), [], None),
        (rounds(2), [None], False),
        (rounds(2), [None, None], True),
        (not_(below("m", 1)), [], None),
        (not_(below("m", 1)), [2], True),
        (any_of(below("m", 1), rounds(1)), [None], True),
        (any_of(below("m", 1), rounds(3)), [None], None),
        (all_of(below("m", 1), rounds(3)), [None], False),
        (all_of(below("m", 1), rounds(1)), [None], None),
        (all_of(below("m", 1), rounds(1)), [0.5], True),
    ],
)
def test_conditions(condition: object, values: list[float | None], answer: bool | None) -> None:
    assert condition.judge(history(*values)) is answer  # type: ignore[attr-defined]
    assert condition.holds(history(*values)) is (answer is True)  # type: ignore[attr-defined]


def test_conditions_look_only_at_rounds_since() -> None:
    record = history(0.5, 0.5, 0.5, 2.0)
    assert below("m", 1).judge(record, since=5) is None
    assert plateau("m", 0.1, 1).judge(record, since=4) is False
    assert rounds(3).judge(record, since=3) is False
    assert record.values("m", since=3) == (0.5, 2.0)


def test_history() -> None:
    record = History().append({"a": 1.0, "b": 2.0}).append({"a": 3.0})
    assert len(record) == 2
    assert (record.last("a"), record.last("b"), record.last("c")) == (3.0, 2.0, None)
    assert record.last("b", since=2) is None
    assert record.latest() == {"a": 3.0, "b": 2.0}
    assert History.from_dict(record.to_dict()) == record
    with pytest.raises(ScheduleError, match="'rounds' must be a list"):
        History.from_dict({})

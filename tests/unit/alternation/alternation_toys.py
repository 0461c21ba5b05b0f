"""Sites, ways to unroll a schedule, and strategies that draw random schedules."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from fedalt.alternation import (
    Condition,
    History,
    Moment,
    Phase,
    Planner,
    RoundSchedule,
    Schedule,
    Selector,
    Site,
    above,
    adaptive,
    all_of,
    any_of,
    below,
    chain,
    choose,
    cosine,
    curriculum,
    cycle,
    exponential,
    exponentiated,
    fits,
    fork,
    linear,
    nest,
    not_,
    parallel,
    plateau,
    power_law,
    proportional,
    ramp,
    repeat,
    rounds,
    stream,
    sweep,
    until,
    when,
)
from fedalt.alternation.schedule import as_schedule, walk
from fedalt.alternation.task_stream import TaskStream
from fedalt.seeds import Seeds

# Every mix of three yes/no attributes, so that nested splits never run out of sites.
SITES = tuple(
    Site(i, f"site-{i}", 10, {f"d{bit}": "x" if i >> bit & 1 else "y" for bit in range(3)})
    for i in range(8)
)
Metrics = Callable[[int], dict[str, float]]


def unroll(
    schedule: Schedule | Phase, limit: int = 50, seed: int = 0, metrics: Metrics | None = None
) -> list[tuple[Phase, ...]]:
    """Return the first rounds of a schedule; the state passes through JSON every round."""
    node, history, found = as_schedule(schedule), History(), []
    state = node.init()
    for number in range(1, limit + 1):
        phases, state = node.next(
            json.loads(json.dumps(state)), Moment(number, history, Seeds(seed))
        )
        if phases is None:
            break
        found.append(phases)
        history = history.append(metrics(number) if metrics else {})
    return found


def names(schedule: Schedule | Phase, limit: int = 50, **more: Any) -> list[str]:
    """Return each round's phase names, joined by ``+``."""
    return ["+".join(p.name for p in phases) for phases in unroll(schedule, limit, **more)]


def measure(number: int, plan: RoundSchedule) -> dict[str, float]:
    """Measure something in a round that depends on the plan, so that history can steer it."""
    found = {"loss": 1.0 / number, "flat": 2.0}
    for part in plan.parts:
        found[f"{part.phase.name}/loss"] = (len(part.phase.name) * 7 + number * 3) % 5 / 2
    return found


def run(planner: Planner, first: int, last: int, history: History) -> tuple[list[Any], History]:
    """Plan and measure rounds; return what was planned, as plain data."""
    found: list[Any] = []
    for number in range(first, last + 1):
        plan = planner.plan(number, history)
        if plan is None:
            break
        found.append([[p.phase.to_dict(), [s.name for s in p.cohort]] for p in plan.parts])
        history = history.append(measure(number, plan))
    return found, history


selectors = st.one_of(
    st.just(Selector()),
    st.builds(Selector, mode=st.just("fixed"), count=st.just(1)),
    st.builds(Selector, mode=st.just("fraction"), rate=st.sampled_from([0.3, 1.0])),
    st.builds(Selector, mode=st.just("poisson"), rate=st.sampled_from([0.1, 0.9])),
)


def phases(prefix: str) -> st.SearchStrategy[Phase]:
    """Draw a phase whose name starts with ``prefix``."""
    return st.builds(
        Phase,
        name=st.sampled_from([f"{prefix}a", f"{prefix}b"]),
        kernel=st.sampled_from(["gradient", "subspace"]),
        clients=selectors,
        train=st.sampled_from([(), ("encoder",), ("encoder", "head")]),
        modality=st.sampled_from(["", "ct"]),
        params=st.dictionaries(
            st.sampled_from(["lr", "flag"]), st.sampled_from([0.5, 3, True, "x"])
        ),
    )


metric_tests = st.one_of(
    st.builds(below, st.sampled_from(["loss", "none"]), st.sampled_from([0.4, 0.2])),
    st.builds(above, st.sampled_from(["loss", "pa/loss"]), st.sampled_from([0.4, 1.2])),
    st.builds(plateau, st.just("flat"), st.just(0.1), st.integers(1, 3)),
)
conditions: st.SearchStrategy[Condition] = st.recursive(
    st.one_of(metric_tests, st.builds(rounds, st.integers(1, 4))),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=2).map(lambda xs: any_of(*xs)),
        st.lists(inner, min_size=1, max_size=2).map(lambda xs: all_of(*xs)),
        # Only of metrics: "not n rounds" holds at once, which leaves nothing to repeat.
        metric_tests.map(not_),
    ),
    max_leaves=3,
)
curves = st.sampled_from([linear(1, 0, 3), cosine(0, 1, 4), exponential(1, 0.01, 3)])
SEQUENCES = ("chain", "repeat", "until", "sweep", "ramp", "curriculum", "when", "stream")
FINITE = ("leaf", *SEQUENCES, "parallel", "fork", "split", "nest", "local")
ENDLESS = ("cycle", "choose", "power_law", "adaptive")


@st.composite
def schedules(
    draw: st.DrawFn, depth: int = 3, prefix: str = "p", finite: bool = False, local: bool = True
) -> Schedule:
    """Draw a nested schedule; ``local`` says whether its phases may have inner phases."""
    kinds = FINITE if finite else FINITE + ENDLESS
    kind = draw(st.sampled_from(kinds if local else [k for k in kinds if k != "local"]))
    if depth == 0 or kind == "leaf":
        return as_schedule(draw(phases(prefix)))

    def below_here(name: str = "", finite: bool = finite, local: bool = local) -> Schedule:
        return draw(schedules(depth - 1, prefix + name, finite, local))

    def several(**more: Any) -> list[Schedule]:
        return [below_here(**more) for _ in range(draw(st.integers(1, 2)))]

    if kind in ENDLESS:
        return _endless(draw, kind, several)
    if kind in SEQUENCES:
        return _sequence(draw, kind, below_here, several)
    if kind == "parallel":
        return parallel(*[below_here(str(i)) for i in range(draw(st.integers(1, 2)))])
    if kind == "fork":
        return fork({name: below_here() for name in draw(st.sampled_from([["u"], ["u", "v"]]))})
    if kind == "split":
        test = fits({f"d{depth - 1}": "x"})
        return when(test, below_here("s"), draw(st.sampled_from([None, below_here("t")])), "client")
    inner = below_here("i", finite=True)
    return nest(below_here("o", local=False), inner, local=kind == "local")


def _sequence(draw: st.DrawFn, kind: str, one: Any, several: Any) -> Schedule:
    if kind == "chain":
        return chain(*several(finite=True), one())
    if kind == "repeat":
        return repeat(one(finite=True), draw(st.integers(1, 3)))
    if kind == "until":
        return until(one(), draw(conditions), draw(st.integers(1, 4)))
    if kind == "sweep":
        field = draw(st.sampled_from(["modality", "task", "params.lr", ("task", "epochs")]))
        return sweep(field, [1, 2], one(finite=True), draw(st.sampled_from(["given", "shuffled"])))
    if kind == "ramp":
        return ramp(one(), {"lr": draw(curves)})
    if kind == "curriculum":
        return curriculum(one(), lr={0: 0.1, 2: 0.2}, epochs={1: 3})
    if kind == "stream":
        item = one(finite=True)
        if any(isinstance(node, TaskStream) for node in walk(item)):
            return item
        environment = draw(st.sampled_from(["none", "uniform", ["inverse_lag", "upper"]]))
        order = draw(st.sampled_from(["sync", "shift", "shuffle"]))
        return stream(item, 2, environment=environment, rehearsal=0.5, order=order)
    return when(draw(conditions), one(), one())


def _endless(draw: st.DrawFn, kind: str, several: Any) -> Schedule:
    if kind == "cycle":
        return cycle(*several(finite=True))
    items = several()
    if kind == "choose":
        return choose(*items, weights=[draw(st.sampled_from([0.5, 2.0])) for _ in items])
    if kind == "power_law":
        return power_law(*items, exponent=0.5, offset=draw(st.sampled_from([0, 10])), p_new=0.3)
    policies = st.sampled_from([proportional("loss"), exponentiated("loss", 0.5)])
    return adaptive(*items, policy=draw(policies), floor=draw(st.sampled_from([0.0, 0.1])))


Named = tuple[Schedule, list[tuple[str, ...]]]


@st.composite
def denoted(draw: st.DrawFn, depth: int = 3, prefix: str = "p") -> Named:
    """Draw a schedule without chance or metrics, with the names of its rounds worked out apart."""
    kind = draw(st.sampled_from(["leaf", "chain", "repeat", "parallel", "nest", "fork", "sweep"]))
    if depth == 0 or kind == "leaf":
        name = prefix + draw(st.sampled_from("ab"))
        return as_schedule(Phase(name)), [(name,)]
    a, rounds_a = draw(denoted(depth - 1, prefix + "0"))
    if kind in ("repeat", "sweep"):
        times = draw(st.integers(1, 3))
        made = repeat(a, times) if kind == "repeat" else sweep("task", list(range(times)), a)
        return made, rounds_a * times
    b, rounds_b = draw(denoted(depth - 1, prefix + "1"))
    if kind == "chain":
        return chain(a, b), rounds_a + rounds_b
    if kind == "nest":
        pairs = [(o, i) for o in rounds_a for i in rounds_b]
        return nest(a, b), [tuple(f"{x}.{y}" for x in o for y in i) for o, i in pairs]
    length = max(len(rounds_a), len(rounds_b))
    padded = [
        rounds_a + [()] * (length - len(rounds_a)),
        rounds_b + [()] * (length - len(rounds_b)),
    ]
    if kind == "parallel":
        return parallel(a, b), [x + y for x, y in zip(*padded, strict=True)]
    marked = [
        [tuple(f"{n}@{m}" for n in r) for r in side] for m, side in zip("uv", padded, strict=True)
    ]
    return fork(u=a, v=b), [x + y for x, y in zip(*marked, strict=True)]

"""Schedules from YAML: the forms, and errors that name their place."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from fedalt.alternation import (
    Phase,
    Selector,
    View,
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
    exponentiated,
    fits,
    fork,
    linear,
    nest,
    not_,
    parallel,
    parse_schedule,
    plateau,
    power_law,
    proportional,
    ramp,
    repeat,
    rounds,
    sweep,
    to_dict,
    until,
    when,
)
from fedalt.errors import ScheduleError

A, B = Phase("a"), Phase("b")
PHASES: dict[str, Any] = {"a": {}, "b": None}

EXAMPLE = """
phases:
  standardize: {kernel: moments}
  consensus: {train: subspace, clients: {mode: fixed, count: 2, where: {modality: ct}}}
  a: {view: {fraction: 0.5}}
  b: {}
schedule:
  chain:
    - standardize
    - until:
        of: consensus
        stop:
          any:
            - below: {metric: primal, value: 1e-3}
            - plateau: {metric: objective, relative: 1e-6, rounds: 5}
        max_rounds: 60
    - repeat: {of: {chain: [a, b]}, times: 3}
"""


@pytest.mark.parametrize(
    "load", [yaml.safe_load, lambda t: OmegaConf.to_container(OmegaConf.create(t))]
)
def test_the_example(load: Any) -> None:
    data = load(EXAMPLE)
    clients = Selector("fixed", 2, where={"modality": ("ct",)})
    stop = any_of(below("primal", 1e-3), plateau("objective", 1e-6, 5))
    expected = chain(
        Phase("standardize", kernel="moments"),
        until(Phase("consensus", train=("subspace",), clients=clients), stop, 60),
        repeat(chain(Phase("a", view=View(0.5)), B), 3),
    )
    assert parse_schedule(data["phases"], data["schedule"]) == expected


FORMS = [
    ("a", A),
    ("{cycle: [a, b]}", cycle(A, B)),
    ("{repeat: {of: a}}", repeat(A)),
    ("{parallel: [a, b]}", parallel(A, B)),
    ("{fork: {u: a, v: b}}", fork(u=A, v=B)),
    ("{nest: {outer: a, inner: b}}", nest(A, B)),
    ("{nest: {outer: a, inner: b, local: true}}", nest(A, B, local=True)),
    ("{choose: [a, b]}", choose(A, B)),
    ("{choose: {of: [a, b], weights: [1, 3]}}", choose(A, B, weights=[1, 3])),
    (
        "{power_law: {of: [a, b], exponent: 0.8, offset: 10, p_new: 0.2}}",
        power_law(A, B, exponent=0.8, offset=10, p_new=0.2),
    ),
    (
        "{adaptive: {of: [a, b], policy: {proportional: {metric: loss}}, floor: 0.1}}",
        adaptive(A, B, policy=proportional("loss"), floor=0.1),
    ),
    (
        "{adaptive: {of: [a, b], policy: {exponentiated: {metric: gain, rate: 2}}}}",
        adaptive(A, B, policy=exponentiated("gain", 2)),
    ),
    ("{sweep: {over: task, values: [u, 1], of: a}}", sweep("task", ["u", 1], A)),
    (
        "{sweep: {over: [tag, params.lr], values: [1], of: a, order: shuffled}}",
        sweep(["tag", "params.lr"], [1], A, "shuffled"),
    ),
    (
        "{ramp: {of: a, set: {lr: {linear: {from: 1, to: 0, rounds: 5}}, view.fraction: "
        "{cosine: {from: 0.1, to: 1, rounds: 9}}}}}",
        ramp(A, {"lr": linear(1, 0, 5), "view.fraction": cosine(0.1, 1, 9)}),
    ),
    ("{curriculum: {of: a, set: {lr: {0: 1.0, 10: 0.1}}}}", curriculum(A, lr={0: 1.0, 10: 0.1})),
    (
        "{when: {if: {all: [{above: {metric: m, value: 1}}, {not: {rounds: 3}}]}, "
        "then: a, else: b}}",
        when(all_of(above("m", 1), not_(rounds(3))), A, B),
    ),
    (
        "{when: {if: {modality: ct, tag: [x, y]}, then: a, else: b, level: client}}",
        when(fits({"modality": "ct", "tag": ["x", "y"]}), A, B, "client"),
    ),
]


@pytest.mark.parametrize(("text", "expected"), FORMS, ids=[text[:24] for text, _ in FORMS])
def test_every_form(text: str, expected: Any) -> None:
    found = parse_schedule(PHASES, yaml.safe_load(text))
    assert to_dict(found) == to_dict(expected)
    again = to_dict(found)
    assert parse_schedule(again["phases"], again["schedule"]) == found


def test_plain_data_is_short_and_keeps_namesakes_apart() -> None:
    data = to_dict(chain(A, Phase("a", epochs=2), A))
    assert data == {
        "phases": {"a": {}, "a#2": {"name": "a", "epochs": 2}},
        "schedule": {"chain": ["a", "a#2", "a"]},
    }


BAD = [
    ("c", "schedule: unknown phase 'c' .known: a, b."),
    ("[a, b]", "schedule: a list here needs a name"),
    ("3", "schedule: combinator is one entry such as 'chain: …', but here is 3"),
    ("{chain: [a], cycle: [b]}", r"schedule: combinator is one entry .* \['chain', 'cycle'\]"),
    ("{chian: [a]}", "schedule: unknown combinator 'chian' .did you mean 'chain'"),
    ("{chain: []}", "schedule.chain: a list with at least one item expected"),
    ("{chain: [a, {cycle: [b, c]}]}", r"schedule.chain\[1\].cycle\[1\]: unknown phase 'c'"),
    ("{chain: [{cycle: [a]}, b]}", "schedule.chain: chain: item 0 never ends"),
    ("{repeat: {of: a, time: 3}}", "schedule.repeat: unknown key 'time' .did you mean 'times'"),
    ("{repeat: {times: 3}}", "schedule.repeat: 'of' is missing"),
    ("{repeat: {of: a, times: 1.5}}", "schedule.repeat.times: a whole number expected"),
    ("{repeat: {of: a, times: -1}}", "schedule.repeat: repeat: times is -1"),
    ("{repeat: [a]}", "schedule.repeat: of expected, but here is"),
    ("{until: {of: a, stop: {belwo: {}}}}", "schedule.until.stop: unknown condition 'belwo'"),
    (
        "{until: {of: a, stop: {any: [{rounds: 1}, {below: {metric: m}}]}}}",
        r"schedule.until.stop.any\[1\].below: 'value' is missing",
    ),
    (
        "{until: {of: a, stop: {below: {metric: m, value: low}}}}",
        "schedule.until.stop.below.value: a number expected, but here is 'low'",
    ),
    ("{until: {of: a, stop: {rounds: 0}}}", "schedule.until: rounds is 0"),
    ("{until: {of: a, stop: {rounds: 1}, max_rounds: 0}}", "schedule.until: until: max_rounds"),
    (
        "{until: {of: a, stop: {plateau: {metric: m, relative: 0, rounds: 1}}}}",
        "schedule.until: plateau of 'm': relative must be positive",
    ),
    ("{fork: {}}", "schedule.fork: entries 'name: …' expected"),
    ("{fork: {u: a, v: c}}", "schedule.fork.v: unknown phase 'c'"),
    ("{when: {if: {rounds: 2}, then: a}}", "schedule.when: when: level 'round' needs something"),
    ("{when: {if: {rounds: 2}, then: a, else: b, level: x}}", "unknown level 'x'"),
    ("{when: {if: ct, then: a, level: client}}", "schedule.when.if: entries 'name: …' expected"),
    ("{nest: {outer: a, inner: {cycle: [b]}}}", "schedule.nest: nest: the inner schedule never"),
    ("{nest: {outer: a, inner: b, local: 1}}", "schedule.nest.local: true or false expected"),
    ("{choose: {of: [a, b], weights: [1]}}", "schedule.choose: choose: 1 weights for 2"),
    ("{choose: {of: [a], weights: [x]}}", r"schedule.choose.weights\[0\]: a number expected"),
    ("{choose: {of: [a], weights: [0]}}", "schedule.choose: choose: weights are"),
    ("{power_law: {of: [a], p_new: 0}}", "schedule.power_law: power_law: p_new is 0"),
    ("{power_law: {of: [a], exponent: -1}}", "power_law: exponent and offset must not be negative"),
    ("{adaptive: {of: [a], policy: {x: 1}}}", "schedule.adaptive.policy: unknown policy 'x'"),
    (
        "{adaptive: {of: [a, b], policy: {proportional: {metric: m}}, floor: 0.6}}",
        "schedule.adaptive: adaptive: floor is 0.6",
    ),
    ("{sweep: {over: kernl, values: [1], of: a}}", "schedule.sweep: sweep: a phase has no field"),
    (
        "{sweep: {over: task, values: [[1]], of: a}}",
        r"schedule.sweep.values\[0\]: a number, a text",
    ),
    ("{sweep: {over: task, values: [1], of: a, order: x}}", "sweep: unknown order 'x'"),
    ("{sweep: {over: task, values: [1, 2], of: {cycle: [a]}}}", "schedule.sweep: sweep: its sched"),
    ("{ramp: {of: a, set: {lr: 3}}}", "schedule.ramp.set.lr: curve is one entry"),
    (
        "{ramp: {of: a, set: {lr: {exponential: {from: 1, to: 0, rounds: 3}}}}}",
        "schedule.ramp: exponential: from 1 to 0 is not possible",
    ),
    (
        "{ramp: {of: a, set: {view.size: {linear: {from: 1, to: 0, rounds: 3}}}}}",
        "schedule.ramp: ramp: a phase has no field 'view.size'",
    ),
    ("{ramp: {of: a, set: {lr: {steps: {0: 1}}}}}", "schedule.ramp.set: only fixed steps"),
    ("{curriculum: {of: a, set: {lr: {x: 1}}}}", "schedule.curriculum.set.lr.x: a number expected"),
    (
        "{curriculum: {of: a, set: {lr: {-1: 1}}}}",
        "schedule.curriculum: curriculum: its rounds are",
    ),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[text[:40] for text, _ in BAD])
def test_bad_entries_are_named(text: str, message: str) -> None:
    with pytest.raises(ScheduleError, match=message) as found:
        parse_schedule(PHASES, yaml.safe_load(text))
    assert str(found.value).startswith("schedule")


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([], "phases: entries 'name: …' expected"),
        ({"a": 3}, "phases.a: a phase's settings expected, but here is 3"),
        ({"a": {"epoch": 3}}, "phases.a: unknown key 'epoch' .did you mean 'epochs'"),
        ({"a": {"clients": {"mode": "fixd"}}}, "phases.a: unknown client selection 'fixd'"),
    ],
)
def test_bad_phases_are_named(phases: Any, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        parse_schedule(phases, "a")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: chain(), "chain needs at least one schedule or phase"),
        (lambda: chain("a"), "'a' is a str, not a schedule or a phase"),
        (lambda: when(fits(tag="x"), A, B), "when: a test of sites needs level 'client'"),
        (lambda: when(rounds(2), A, B, "client"), "tests a site's attributes"),
        (lambda: fits(), "needs an attribute"),
        (lambda: any_of(), "'any' needs at least one condition"),
        (lambda: ramp(A), "ramp needs at least one value"),
        (lambda: sweep("task", [], A), "sweep needs a field and at least one value"),
    ],
)
def test_bad_calls(build: Any, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        build()

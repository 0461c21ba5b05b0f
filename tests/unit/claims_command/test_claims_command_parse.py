"""A claim as a scenario writes it: what is read, and how a mistake is told."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from fedalt.claims.claim import parse_claim
from fedalt.claims.statements import Contrast, parse_statement
from fedalt.errors import ConfigError

ARMS = {"none": None, "uniform": ["rounds=3"], "power": []}


def claim(**changes: Any) -> dict[str, Any]:
    data = {
        "text": "rehearsal\n  helps",
        "arms": ARMS,
        "holds": [{"more": "uniform", "than": "none", "measure": "acc"}],
    }
    return {k: v for k, v in {**data, **changes}.items() if v is not ...}


def test_what_is_read() -> None:
    read = parse_claim(claim(shown=[{"arm": "power", "measure": "bwt", "near": 0, "within": 1}]))
    assert (read.text, read.seeds, read.measure) == ("rehearsal helps", 3, None)
    assert read.arms == {"none": (), "uniform": ("rounds=3",), "power": ()}
    assert read.measures == ["acc", "bwt"] and len(read.holds) == len(read.shown) == 1


@pytest.mark.parametrize(
    ("data", "text", "weights", "low", "high"),
    [
        (
            {"more": "uniform", "than": "none", "by": 0.05},
            "acc: uniform > none + 0.05",
            (("uniform", 1), ("none", -1)),
            math.nextafter(0.05, 1),
            math.inf,
        ),
        (
            {"more": "uniform", "than": "none", "by": -1, "times": 10},
            "acc: uniform > 10 × none − 1",
            (("uniform", 1), ("none", -10)),
            math.nextafter(-1, 1),
            math.inf,
        ),
        (
            {"more": ["uniform", "none"], "than": ["power", "none"], "times": 2},
            "acc: uniform − none > 2 × (power − none)",
            (("uniform", 1), ("none", -1), ("power", -2), ("none", 2)),
            math.nextafter(0, 1),
            math.inf,
        ),
        (
            {"same": ["uniform", "power"], "within": 0.04},
            "acc: uniform ≈ power (± 0.04)",
            (("uniform", 1), ("power", -1)),
            -0.04,
            0.04,
        ),
        (
            {"arm": "none", "near": 0.5, "within": 0.25},
            "acc: none = 0.5 ± 0.25",
            (("none", 1),),
            0.25,
            0.75,
        ),
    ],
)
def test_a_statement(data: Any, text: str, weights: Any, low: float, high: float) -> None:
    read = parse_statement({"measure": "acc", **data}, ARMS, "claim.holds[0]")
    assert read.text == text and (read.low, read.high) == (low, high)
    assert read.contrasts == (Contrast(read.contrasts[0].label, weights),)


def test_every_pair_of_those_that_are_the_same() -> None:
    data = {"same": ["none", "uniform", "power"], "within": 1, "measure": "acc"}
    read = parse_statement(data, ARMS, "here")
    assert [c.label for c in read.contrasts] == [
        "none − uniform",
        "none − power",
        "uniform − power",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hold": []}, r"claim: unknown key 'hold' \(did you mean 'holds'\?\)"),
        ({"text": ...}, r"claim: 'text' is missing; a claim needs text, arms and holds"),
        ({"holds": []}, r"claim: 'holds' is missing"),
        ({"text": 3}, r"claim.text: a text expected, but here is 3"),
        ({"seeds": 0}, r"claim.seeds=0: a whole number of at least 1 expected"),
        ({"seeds": True}, r"claim.seeds=True: a whole number"),
        ({"seeds": "3"}, r"claim.seeds='3': a whole number"),
        ({"measure": "os:system"}, r"claim.measure='os:system': a function of an installed scen"),
        ({"measure": "fedalt.scenarios.x"}, r"such as fedalt.scenarios.NAME.measures:measure"),
        ({"arms": ["none"]}, r"claim.arms: entries 'name: \[overrides\]' expected"),
        ({"arms": {"a,b": []}}, r"claim.arms.a,b: an arm's name has letters"),
        ({"arms": {"a": "rounds=3"}}, r"claim.arms.a: a list of overrides expected"),
        ({"arms": {"a": [{"rounds": 3}]}}, r"claim.arms.a: an override is a text such as rounds=9"),
        ({"arms": {"a": ["rounds"]}}, r"claim.arms.a: 'rounds' is no override"),
        ({"arms": {"a": ["seed=3"]}}, r"claim.arms.a: 'seed=3': an arm cannot set seed; the claim"),
        ({"base": ["out=x"]}, r"claim.base: 'out=x': an arm cannot set out"),
        ({"holds": {"more": "a"}}, r"claim.holds: a list of statements expected"),
        ({"shown": [3]}, r"claim.shown\[0\]: a statement such as \{more: a, than: b, measure: m\}"),
    ],
)
def test_a_mistake_in_a_claim(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_claim(claim(**changes))


MORE = {"more": "uniform", "than": "none", "measure": "acc"}
SAME = {"same": ["uniform", "none"], "measure": "acc", "within": 0.1}
NEAR = {"arm": "none", "measure": "acc", "near": 0.5, "within": 0.1}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({**MORE, "more": "unifrom"}, r"\.more: unknown arm 'unifrom' \(did you mean 'uniform'"),
        ({**MORE, "than": "nil"}, r"\.than: unknown arm 'nil' \(did you mean 'uniform'|known:"),
        ({**MORE, "within": 1}, r"unknown key 'within'"),
        ({**MORE, "tims": 1}, r"unknown key 'tims' \(did you mean 'times'\?\)"),
        ({**MORE, "by": "much"}, r"\.by='much': a number expected"),
        ({**MORE, "by": True}, r"\.by=True: a number expected"),
        ({**MORE, "by": math.nan}, r"\.by=nan: a number expected"),
        ({**MORE, "times": 0}, r"\.times=0: must be more than 0"),
        ({**MORE, "measure": 3}, r"\.measure: the name of a measure expected, but here is 3"),
        (
            {"more": "uniform", "than": "none"},
            r"'measure' is missing; 'more' needs more, than, mea",
        ),
        ({**MORE, "than": "uniform"}, r"'more' and 'than' are the same"),
        (
            {**MORE, "more": ["uniform", "none"]},
            r"both one arm, or both two \(\[a, b\] means a − b",
        ),
        ({**MORE, "more": ["uniform"]}, r"\.more: one arm, or two as \[a, b\]"),
        ({**MORE, **SAME}, r"a statement has one of more, same, arm, but this has more and same"),
        ({"measure": "acc"}, r"but this has none \(its keys: measure\)"),
        ({}, r"its keys: none"),
        ({**SAME, "same": "none"}, r"\.same: a list of two arms or more expected, not 'none'"),
        ({**SAME, "same": ["none", "none"]}, r"\.same: an arm is named twice"),
        ({**SAME, "same": ["none", "x"]}, r"\.same\[1\]: unknown arm 'x'"),
        ({**SAME, "within": -1}, r"\.within=-1: must be 0 or more"),
        ({**NEAR, "near": "half"}, r"\.near='half': a number expected"),
        ({**NEAR, "arm": ["none"]}, r"\.arm: unknown arm '\['none'\]'"),
        ({k: v for k, v in NEAR.items() if k != "near"}, r"'near' is missing; 'arm' needs arm, me"),
    ],
)
def test_a_mistake_in_a_statement_names_its_place(data: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_claim(claim(holds=[MORE, data]))
    assert str(caught.value).startswith("claim.holds[1]")
    assert re.search(message, str(caught.value)), caught.value

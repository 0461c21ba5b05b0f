"""A claim's measure over the ε that its arms spent."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedalt.claims.claim import parse_claim
from fedalt.claims.measures import Measured
from fedalt.claims.outcome import Outcome
from fedalt.claims.tradeoff import draw_tradeoff, method_of, tradeoff

RUNS = {
    "dp-8": [{"acc": 0.8, "privacy/client": 7.0}, {"acc": 0.9, "privacy/client": 9.0}],
    "dp-1": [{"acc": 0.6, "privacy/client": 1.0}, {"acc": 0.6, "privacy/client": 1.0}],
    "free": [{"acc": 0.9}, {"acc": 0.95}],
}


def outcome(**runs: list[dict[str, float]]) -> Outcome:
    made = {arm.replace("_", "-"): values for arm, values in runs.items()}
    claim = parse_claim(
        {
            "text": "x",
            "arms": dict.fromkeys(made),
            "holds": [{"arm": next(iter(made)), "measure": "acc", "near": 1, "within": 1}],
        }
    )
    measured = {arm: [Measured(values) for values in each] for arm, each in made.items()}
    return Outcome("toy", claim, range(len(next(iter(made.values())))), measured)


def test_arms_of_a_method_are_a_curve_by_rising_epsilon(tmp_path: Path) -> None:
    made = outcome(**RUNS)
    found = tradeoff(made)
    assert found is not None
    assert (found.unit, found.measure) == ("client", "acc")
    assert [epsilon for epsilon, _ in found.curves["dp"]] == [1.0, 8.0]
    assert found.curves["dp"][1][1].mean == pytest.approx(0.85)
    assert list(found.levels) == ["free"]
    path = draw_tradeoff(made, tmp_path / "tradeoff.png")
    assert path is not None and path.is_file()


def test_without_privacy_there_is_nothing_to_draw(tmp_path: Path) -> None:
    made = outcome(free=RUNS["free"])
    assert tradeoff(made) is None and draw_tradeoff(made, tmp_path / "x.png") is None
    assert not (tmp_path / "x.png").exists()


def test_names_of_arms() -> None:
    assert [method_of(arm) for arm in ("alone-0.5", "own-way-3", "free")] == [
        "alone",
        "own-way",
        "free",
    ]

"""Privacy specs as plain data: each mistake is named, with what to do."""

from __future__ import annotations

from typing import Any

import pytest

from fedalt.alternation.phase import Phase
from fedalt.alternation.privacy_spec import PrivacySpec
from fedalt.errors import ScheduleError


@pytest.mark.parametrize(
    ("privacy", "message"),
    [
        (5, r"privacy is 5, but entries 'name: value' are expected"),
        ("client", r"privacy is 'client', but entries 'name: value' are expected"),
        (["client"], r"privacy is \['client'\], but entries 'name: value' are expected"),
        ({"clips": 3}, r"clips is 3, but a bound for each block is expected, .*\{body: 1\.0"),
        ({"clips": {"body": True}}, r"clips\.body is True, but must be a number"),
        ({"clips": {"body": -1}}, r"clips\.body is -1\.0, but must be a finite number above 0"),
        ({"clip": float("inf")}, r"clip is inf, but must be a finite number above 0"),
        ({"clip": "nan"}, r"clip is nan, but must be a finite number above 0"),
        ({"clip": 0}, r"clip is 0\.0, but must be a finite number above 0"),
        ({"noise": True}, r"noise is True, but must be a number"),
        ({"noise": 0}, r"noise is 0\.0, but must be a number above 0"),
        ({"noise": float("inf")}, r"noise is inf, but must be a number above 0"),
        ({"bands": 2}, r"bands is 2, .* only with mechanism: banded; set that"),
        ({"mechanism": "banded"}, r"mechanism .banded. needs bands of 2 or more, but bands is 0"),
        (
            {"unit": "user"},
            r"unit .user. with contributions 1: set contributions to 2 or more, .* or unit: record",
        ),
        ({"contributions": 2}, r"contributions is 2, but must be 1 unless unit is 'user'"),
    ],
)
def test_a_wrong_spec_is_named_with_its_phase_and_what_to_do(privacy: Any, message: str) -> None:
    with pytest.raises(ScheduleError, match=rf"^phase 'train': (privacy: )?{message}"):
        Phase.from_dict({"privacy": privacy}, name="train")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"noise": True}, r"privacy: noise is True"),
        ({"clip": True}, r"privacy: clip is True"),
        ({"clips": 3}, r"privacy: clips is 3, but a bound for each block"),
    ],
)
def test_a_spec_made_by_hand_is_checked_as_well(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        PrivacySpec(**values)


@pytest.mark.parametrize(
    "privacy",
    [
        {"clip": "1e-3", "noise": 2},
        {"clips": {"head": 1, "body": "0.5"}},
        {"mechanism": "banded", "bands": 2},
        {"unit": "user", "contributions": 2},
        {"unit": "record"},
    ],
)
def test_a_spec_reads_back_from_its_plain_data(privacy: dict[str, Any]) -> None:
    phase = Phase.from_dict({"privacy": privacy}, name="train")
    assert phase.privacy is not None
    assert Phase.from_dict(phase.to_dict()) == phase
    for key, value in privacy.items():
        if key in ("clip", "noise"):
            assert getattr(phase.privacy, key) == float(value)

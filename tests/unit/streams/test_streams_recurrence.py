"""The hazard: measured slope, who stays alive, and what a warning names."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from fedalt.alternation import Phase, power_law, stream
from fedalt.alternation.recurrence import Hazard, alive, hazard_slope, hazard_steps
from fedalt.errors import ScheduleError
from fedalt.seeds import Seeds


@pytest.mark.parametrize(("exponent", "offset"), [(0.3, 0.0), (0.5, 0.0), (0.8, 0.0), (0.8, 10.0)])
def test_the_measured_slope_is_minus_the_exponent(exponent: float, offset: float) -> None:
    law = Hazard(exponent, offset, 0.1)
    for seed in range(3):
        steps = hazard_steps(law, 20, 8000, Seeds(seed))
        assert hazard_slope(steps, offset) == pytest.approx(-exponent, abs=0.1)


def test_another_law_has_another_slope() -> None:
    """The estimate is of the data: uniform recurrence has slope 0, round robin none at all."""
    rng = np.random.default_rng(0)
    assert hazard_slope(rng.integers(0, 20, 6000)) == pytest.approx(0.0, abs=0.1)


def test_below_one_all_stay_alive_above_one_few_do() -> None:
    """20 tasks over 8 000 steps, alive in the second half; the published counts."""
    counts = {
        (d, o): alive(hazard_steps(Hazard(d, o, 0.05), 20, 8000, Seeds(1)))
        for d, o in ((0.5, 0), (0.8, 0), (1.3, 0), (2.0, 0), (0.95, 10), (2.0, 10), (5.6, 10))
    }
    assert counts[0.5, 0] == 20
    assert counts[0.8, 0] >= 18 and counts[0.95, 10] >= 18
    assert counts[1.3, 0] <= 5 and counts[2.0, 10] <= 5
    assert counts[2.0, 0] == 1 and counts[5.6, 10] == 1


def test_a_longer_stream_begins_with_a_shorter_one() -> None:
    law = Hazard(0.5, 0.0, 0.1)
    assert (hazard_steps(law, 5, 300, Seeds(2))[:100] == hazard_steps(law, 5, 100, Seeds(2))).all()


def test_tasks_come_in_order_and_none_before_it_was_introduced() -> None:
    steps = hazard_steps(Hazard(0.5, 0.0, 0.1), 10, 500, Seeds(3)).tolist()
    assert list(dict.fromkeys(steps)) == list(range(10))


def test_the_warning_names_how_many_tasks_stay_alive() -> None:
    phases = [Phase(str(i)) for i in range(20)]
    with pytest.warns(UserWarning, match=r"power_law: with exponent 2 ≥ 1 only 1 of 20 tasks"):
        power_law(*phases, exponent=2.0)
    hazard = [{"hazard": {"exponent": 1.3, "scale": 0, "p_new": 0.1}}]
    with pytest.warns(UserWarning, match=r"'hazard': with exponent 1\.3 ≥ 1 only \d of 20 tasks"):
        stream(Phase("a"), 20, environment=hazard, experiences=30)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        power_law(*phases, exponent=0.9)


@pytest.mark.parametrize(
    "values", [(-0.1, 0.0, 0.1), (0.5, -1.0, 0.1), (0.5, 0.0, 0.0), (0.5, 0.0, 1.5)]
)
def test_bad_laws_are_refused(values: tuple[float, float, float]) -> None:
    with pytest.raises(ScheduleError):
        Hazard(*values)

"""Which runs a claim needs, what names their folders, and what is stored of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federations import settings

from fedalt.claims import measures as measures_module
from fedalt.claims.claim import Claim, parse_claim
from fedalt.claims.jobs import Job, plan_jobs, run_hash
from fedalt.claims.measures import Measured, find_measure, measure_run, store, stored, version_of
from fedalt.claims.outcome import Outcome, check_measured
from fedalt.claims.tables import figure, tables, to_data, verdict_line
from fedalt.errors import ConfigError, FedaltError
from fedalt.overrides import Override
from fedalt.runs.report import Finished

STATEMENTS = [{"more": "b", "than": "a", "measure": "acc"}]
OWN = "fedalt.scenarios.fedavg_mnist.measures:measure"


def claim(**arms: list[str]) -> Claim:
    data = {"text": "b beats a", "arms": arms, "base": ["quorum=0.5"], "holds": STATEMENTS}
    return parse_claim(data)


def resolve(overrides: Sequence[str]) -> dict[str, Any]:
    """Settings as overrides say, the last one of a key first; ``task.`` keys become the task."""
    config = settings()
    for text in overrides:
        read = Override.read(text)
        if read.key == "wrong":
            raise ConfigError("unknown override 'wrong'")
        config[read.key] = read.value
    return config


def planned(made: Claim, *overrides: str, arms: Sequence[str] = ("a", "b")) -> list[Job]:
    return plan_jobs(made, resolve, overrides, arms, [4, 5], Path("root"))


def test_arms_of_one_configuration_share_a_run() -> None:
    jobs = planned(claim(a=["rounds=3"], b=["rounds=3"]))
    assert [job.stands_for for job in jobs] == [(("a", 4), ("b", 4)), (("a", 5), ("b", 5))]
    jobs = planned(claim(a=["rounds=3"], b=["rounds=4"]))
    assert len(jobs) == 4 == len({job.folder for job in jobs})
    assert all(job.folder.parent == Path("root") for job in jobs)


def test_a_users_override_wins_over_the_base_and_an_arms_over_both() -> None:
    jobs = planned(claim(a=["rounds=3"], b=[]), "rounds=7", "quorum=0.9", "seed=9")
    by_arm = {job.stands_for[0]: job.config for job in jobs}
    assert [by_arm[arm, 4]["rounds"] for arm in "ab"] == ["3", "7"]
    assert {config["quorum"] for config in by_arm.values()} == {"0.9"}
    assert {config["seed"] for config in by_arm.values()} == {"4", "5"}, "the claim's seeds"


def test_runs_of_one_task_stand_side_by_side() -> None:
    jobs = planned(claim(a=["task=x"], b=["task=y"]))
    assert [job.stands_for[0] for job in jobs] == [("a", 4), ("a", 5), ("b", 4), ("b", 5)]


def test_a_wrong_override_names_the_arm() -> None:
    with pytest.raises(ConfigError, match="arm 'b': unknown override 'wrong'"):
        planned(claim(a=[], b=["wrong=1"]))


def test_the_hash_is_that_of_what_weights_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEDALT_DATA", raising=False)
    base = run_hash(settings())
    told = {"summary": "x", "progress": False, "claim": {"a": 1}, "out": "x", "name": "x"}
    assert run_hash(settings(**told)) == base
    for change in ({"rounds": 9}, {"seed": 3}, {"quorum": 0.5}, {"task": {"rows": 9}}):
        assert run_hash(settings(**change)) != base
    monkeypatch.setenv("FEDALT_DATA", "/elsewhere")
    elsewhere = run_hash(settings())
    assert elsewhere != base, "other data may lie there"
    monkeypatch.setattr("fedalt.claims.jobs.__version__", "99")
    assert run_hash(settings()) not in (base, elsewhere)


def ended(**metrics: float) -> Finished:
    result = {"round": 3, "bytes_up": 10, "bytes_down": 20, "weights_sha256": "ab"}
    return Finished("main", {}, [], {**result, "metrics": metrics}, {})


def test_measures_are_the_last_metrics_and_what_the_scenario_adds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = measure_run(None, None, ended(acc=0.5))  # type: ignore[arg-type]
    assert plain.values == {"rounds": 3, "bytes_up": 10, "bytes_down": 20, "acc": 0.5}
    added = {"own": np.float32(2), "data": "digits"}
    monkeypatch.setattr("fedalt.scenarios.fedavg_mnist.measures.measure", lambda *_: added)
    more = measure_run(OWN, None, ended(acc=0.5))  # type: ignore[arg-type]
    assert more.values["own"] == 2.0 and more.facts == {"data": "digits"}
    for wrong, message in (({"odd": [1]}, r"measure 'odd' is \[1\]; a number"), (3, "returned 3")):
        monkeypatch.setattr(
            "fedalt.scenarios.fedavg_mnist.measures.measure", lambda *_, wrong=wrong: wrong
        )
        with pytest.raises(ConfigError, match=message):
            measure_run(OWN, None, ended())  # type: ignore[arg-type]


def test_a_function_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"no function 'mesure' \(did you mean 'measure'\?\)"):
        find_measure("fedalt.scenarios.fedavg_mnist.measures:mesure")
    with pytest.raises(ConfigError, match=r"claim.measure=.*No module named"):
        find_measure("fedalt.scenarios.nope.measures:measure")


def test_measures_of_another_version_of_the_function_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = version_of(OWN)
    measured = Measured({"acc": 0.1}, {"data": "x"}, "ab")
    assert stored(tmp_path, version) is None
    store(tmp_path, version, measured)
    assert stored(tmp_path, version) == measured
    assert stored(tmp_path, version_of(None)) is None

    class Spec:
        origin = str(tmp_path / "edited.py")

    (tmp_path / "edited.py").write_text("# another file\n")
    monkeypatch.setattr(measures_module, "find_spec", lambda name: Spec)
    assert version_of(OWN) != version and stored(tmp_path, version_of(OWN)) is None
    (tmp_path / "measures.json").write_text("{")
    with pytest.raises(FedaltError, match=r"measures.json is damaged .* delete it"):
        stored(tmp_path, version)


def outcome(a: list[float], b: list[float], **runs: list[float]) -> Outcome:
    made = {"a": a, "b": b, **runs}
    seeds = list(range(len(a)))
    measured = {arm: [Measured({"acc": v}, {"data": "x"}) for v in vs] for arm, vs in made.items()}
    return Outcome("toy", claim(a=[], b=[]), seeds, measured)


def test_the_outcome_in_words() -> None:
    held = outcome([1.0, 2.0, 3.0], [2.0, 3.0, 4.0])
    arms, claimed = tables(held)
    assert arms.rows == (("a", "2.0 ± 2.5"), ("b", "3.0 ± 2.5")) and arms.notes == ("data: x",)
    assert claimed.rows == (("acc: b > a", "1", "1 to 1", "holds"),)
    assert verdict_line(held) == "the claim holds: 1 of 1 statements hold"
    broken = outcome([2.0, 3.0], [1.0, 2.0])
    assert verdict_line(broken) == "the claim does not hold: 0 of 1 statements hold, 1 do not"
    open_ = outcome([1.0, 2.0, 3.0], [1.0, 2.0, 6.0])
    assert verdict_line(open_) == "the claim is undecided: 0 of 1 statements hold, 1 undecided"
    one = outcome([1.0], [2.0])
    assert tables(one)[1].rows[0][2:] == (None, "holds (one seed)")
    assert verdict_line(one).endswith("(by the means of one seed; no interval)")


def test_arms_that_were_not_run_leave_a_claim_undecided() -> None:
    made = Outcome("toy", claim(a=[], b=[]), [0], {"a": [Measured({"acc": 1.0})]})
    assert made.verdict == "undecided" and made.holds == ()
    assert verdict_line(made).startswith(
        "the claim is undecided: 0 of 1 statements hold, 1 not judged, for want of arms"
    )


def test_data_for_machines_has_no_number_that_is_not_finite() -> None:
    made = outcome([float("nan"), 1.0], [1.0, 2.0])
    jobs = [Job(Path(f"r/{a}{s}"), {}, None, ((a, s),)) for a in "ab" for s in (0, 1)]
    data = to_data(made, jobs)
    assert data["verdict"] == "undecided" and data["holds"][0]["mean"] is None
    assert data["arms"]["a"]["runs"][0]["measures"] == {"acc": None}
    assert data["arms"]["b"]["runs"][1] == {
        "seed": 1,
        "folder": "b1",
        "weights_sha256": "",
        "measures": {"acc": 2.0},
        "facts": {"data": "x"},
    }


def test_a_misspelt_measure_is_told_by_the_first_run() -> None:
    with pytest.raises(
        ConfigError, match=r"claim.holds\[0\].measure: arm 'a' has no measure 'acc' \(did you mean"
    ):
        check_measured(claim(a=[], b=[]), "a", Measured({"accu": 1.0}))
    check_measured(claim(a=[], b=[], c=[]), "c", Measured({}))


@pytest.mark.parametrize(
    ("mean", "half", "text"),
    [
        (0.47481, 0.03124, "0.475 ± 0.031"),
        (626.2, 53.4, "626 ± 53"),
        (39.67, 13.66, "40 ± 14"),
        (3.0, 0.0, "3 ± 0"),
        (0.12345, None, "0.1235"),
    ],
)
def test_a_figure_has_the_digits_that_its_interval_supports(
    mean: float, half: float | None, text: str
) -> None:
    from fedalt.claims.judge import Interval

    assert figure(Interval(mean, half, 3)) == text

"""The four hospitals: who is held out, models, judgement, and what a plan says they pay."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from fedalt.alternation.parse import parse_schedule
from fedalt.build import TaskCache
from fedalt.data import HOSPITALS
from fedalt.errors import ConfigError
from fedalt.privacy.account import Scope
from fedalt.privacy.forecast import Forecast, forecast
from fedalt.privacy.terms import terms_of
from fedalt.runs.folder import RunFolder
from fedalt.runs.plan import preview_of
from fedalt.runs.report import Finished, finished
from fedalt.runs.simulate import simulate
from fedalt.scenario import find_scenario
from fedalt.scenarios.dp_hospitals import report
from fedalt.scenarios.dp_hospitals.judgement import judge
from fedalt.scenarios.dp_hospitals.measures import measure
from fedalt.scenarios.dp_hospitals.task import Hospitals
from fedalt.seeds import Seeds

REAL = Path(os.environ.get("FEDALT_DATA", "")) / "heart_uci4"
pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason="FEDALT_DATA holds no heart_uci4")
FREE = ("phases.train.privacy=null", "~privacy.budget", "rounds=3")
LOCAL = "phases.train.aggregate={head: local, offset: local}"


def plan(*overrides: str, variant: str = "") -> Forecast:
    """Return what a configuration will cost, without running it."""
    scenario = find_scenario("dp_hospitals")
    changes: Sequence[str] = scenario.config()["variants"].get(variant, [])
    config = scenario.config([*changes, *overrides])
    preview, _ = preview_of(config, TaskCache())
    phases = list(parse_schedule(config["phases"], config["schedule"]).phases())
    terms = terms_of(config, phases, preview.sites)
    assert terms is not None
    return forecast(terms, preview)


def by_hospital(found: Forecast) -> np.ndarray:
    return found.account.each(Scope("record"), found.terms.delta, tight=True)


def finish(folder: Path, *overrides: str) -> Finished:
    config = find_scenario("dp_hospitals").config(list(overrides))
    run = RunFolder(folder)
    run.create({**config, "compared": {}})
    simulate(config, run, TaskCache())
    return finished(run, "main")


def test_every_patient_is_trained_on_or_held_out_and_seeds_choose_others() -> None:
    task, again, other = Hospitals(seed=1), Hospitals(seed=1), Hospitals(seed=2)
    sizes = [site.size for site in task.sites]
    held = [len(task.held_out(i)[1]) for i in range(4)]
    assert [a + b for a, b in zip(sizes, held, strict=True)] == [303, 294, 123, 200]
    assert sizes == [212, 206, 87, 140]
    for site in range(4):
        # Both kinds are held out everywhere, also of Switzerland's 8 without a disease.
        assert 0.0 < float(task.held_out(site)[1].mean()) < 1.0
        torch.testing.assert_close(task.site_data(site), again.site_data(site))
    assert not torch.equal(task.site_data(0)[0], other.site_data(0)[0])


@pytest.mark.parametrize("model", ["logistic", "mlp"])
def test_models_score_patients_and_their_blocks_cover_them(model: str) -> None:
    task = Hospitals(model=model)
    arrays = task.initial_arrays(Seeds(0))
    assert list(arrays) == list(task.model().state_dict())
    first = {name.split(".")[0] for name in arrays}
    assert {block.name for block in task.blocks} == first
    x, y = task.site_data(2)
    loss, metrics = task.loss(task.model(), (x, y))
    assert loss.ndim == 0 and torch.as_tensor(metrics["accuracy"]).ndim == 0
    # A batch of one row keeps its dimension, as samples of rows need.
    assert task.model()(x[:1]).shape == (1,)
    assert task.model()(x[:0]).shape == (0,)


def test_an_offset_moves_every_score_alike() -> None:
    task = Hospitals()
    arrays = {**task.initial_arrays(Seeds(0)), "offset.weight": np.full((1, 1), 5.0, np.float32)}
    found = task.evaluate(arrays)
    assert found["accuracy_switzerland"] == pytest.approx(34 / 36)
    assert found["auc"] == 0.5


def test_measures_of_scores_that_are_known() -> None:
    right = (np.array([2.0, -1.0]), np.array([True, False]))
    wrong = (np.array([-2.0, 1.0, 3.0]), np.array([True, False, True]))
    found = judge({"a": right, "b": wrong})
    assert found["auc_small"] == 0.75
    assert (found["accuracy_a"], found["auc_a"]) == (1.0, 1.0)
    assert found["accuracy_b"] == pytest.approx(1 / 3)
    assert (found["auc_b"], found["worst_auc"]) == (0.5, 0.5)
    # Pairs over both hospitals: 2, −2, 3 ill; −1, 1 not: 4 of 6 in order.
    assert found["auc"] == pytest.approx(4 / 6)
    losses = [math.log1p(math.exp(v)) for v in (-2.0, -1.0, 2.0, 1.0, -3.0)]
    assert found["loss"] == pytest.approx(sum(losses) / 5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"model": "mpl"}, "did you mean 'mlp'"), ({"holdout": 1.0}, "holdout=1.0")],
)
def test_settings_that_make_no_sense(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Hospitals(**settings)  # type: ignore[arg-type]


def test_every_patient_pays_an_epsilon_of_three() -> None:
    found = by_hospital(plan())
    np.testing.assert_allclose(found, found[0])
    assert 2.9 < found[0] <= 3.0


@pytest.mark.parametrize(
    ("noise", "epsilon"), [(0.70, 8.0), (2.27, 1.0), (3.85, 0.5), (6.73, 0.25)]
)
def test_the_noises_of_the_readme_and_the_claim_make_their_epsilon(
    noise: float, epsilon: float
) -> None:
    found = by_hospital(plan("~privacy.budget", f"phases.train.privacy.noise={noise}"))
    assert 0.97 * epsilon < found.max() <= epsilon


def test_noise_of_its_own_brings_each_hospital_to_the_same_epsilon() -> None:
    found = by_hospital(plan(variant="turns"))
    assert found.min() > 2.9 and found.max() <= 3.0


def test_small_hospitals_sit_out_at_their_budget() -> None:
    found = plan(variant="sit_out")
    assert len(found.steps) == 30 and not found.reason
    epsilon = dict(zip(HOSPITALS, by_hospital(found), strict=True))
    assert all(value <= 3.0 for value in epsilon.values())
    free = by_hospital(plan("phases.train.privacy.sample_rate=0", "~privacy.budget"))
    assert free[2] > 5.0 and free[3] > 3.0
    assert epsilon["switzerland"] > 2.5 and epsilon["cleveland"] == pytest.approx(free[0])


def test_it_learns_and_reports_without_privacy(tmp_path: Path) -> None:
    task = Hospitals()
    common, alone = finish(tmp_path / "run", *FREE), finish(tmp_path / "alone", *FREE, LOCAL)
    assert common.metric("server/auc")[1][-1] > 0.75
    assert not common.local and alone.local == set(alone.arrays)
    # What hospitals keep for themselves is judged, not the server's untouched copy.
    assert measure(task, alone)["loss"] != task.evaluate(alone.arrays)["loss"]
    (tmp_path / "run" / "report").mkdir(exist_ok=True)
    made = report.write(task, {"main": common, "alone": alone}, tmp_path / "run" / "report")
    assert all(path.is_file() for path in made.figures)
    costs = {row[0]: row[2:] for row in made.tables[1].rows}
    assert costs["va"] == ("∞", "∞")


@pytest.mark.parametrize("local", [False, True])
def test_a_private_run_spends_what_its_plan_says(tmp_path: Path, local: bool) -> None:
    changes = ("rounds=2", *((LOCAL,) if local else ()))
    run = finish(tmp_path / "run", *changes)
    spent = report.epsilons(Hospitals(), report.ledger_of(tmp_path / "run", "main"))
    np.testing.assert_allclose(spent, by_hospital(plan(*changes)), rtol=1e-9)
    assert np.isfinite(spent).all() and spent.min() > 0.0
    assert (len(run.local) > 0) == local

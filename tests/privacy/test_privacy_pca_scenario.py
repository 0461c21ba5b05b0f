"""The scenario dp_federated_pca: public units, judges that no record trains, and its ledger."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedalt.alternation.parse import parse_schedule
from fedalt.build import TaskCache
from fedalt.data.nsl_kdd_names import FEATURES
from fedalt.errors import ConfigError
from fedalt.privacy.account import Scope
from fedalt.privacy.accounting import exact_gaussian
from fedalt.privacy.forecast import forecast
from fedalt.privacy.ledger import FILE
from fedalt.privacy.terms import terms_of
from fedalt.runs.folder import RunFolder
from fedalt.runs.plan import preview_of
from fedalt.runs.report import Finished, finished
from fedalt.runs.simulate import simulate
from fedalt.scenario import find_scenario
from fedalt.scenarios.dp_federated_pca import report
from fedalt.scenarios.dp_federated_pca.scales import scale_of
from fedalt.scenarios.dp_federated_pca.task import PrivatePCA
from fedalt.seeds import Seeds

sys.path.insert(0, str(Path(__file__).parents[1] / "end_to_end"))

from e2e_command import Command

SMALL = (
    *("task.data=synthetic", "task.rank=6", "task.rows=3000", "task.clients=5", "compare=[]"),
    *("phases.centre.privacy.clip=1.0", "phases.summary.privacy.clip=0.5"),
    *("phases.iterate.privacy.clip=0.5", "progress=false"),
)
SEEDED = ("+phases.centre.privacy.rng=seeded", "+phases.summary.privacy.rng=seeded")
DELTA = 5e-6


def configuration(*overrides: str, variant: str = "", arm: str = "") -> dict[str, Any]:
    scenario = find_scenario("dp_federated_pca")
    plain = scenario.config()
    changes: Sequence[str] = [
        *plain["variants"].get(variant, []),
        *(plain["claim"]["base"] if arm else []),
        *(plain["claim"]["arms"][arm] if arm else []),
    ]
    return scenario.config([*SMALL, *changes, *overrides])


def planned(config: dict[str, Any]) -> float:
    """Return what a configuration will cost a record, without running it."""
    preview, _ = preview_of(config, TaskCache())
    phases = list(parse_schedule(config["phases"], config["schedule"]).phases())
    terms = terms_of(config, phases, preview.sites)
    assert terms is not None
    made = forecast(terms, preview)
    return float(made.account.worst(Scope("record"), terms.delta, tight=True).epsilon)


def finish(folder: Path, config: dict[str, Any]) -> Finished:
    run = RunFolder(folder)
    run.create({**config, "compared": {}})
    simulate(config, run, TaskCache())
    return finished(run, "main")


def entries(folder: Path, status: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / FILE).read_text().splitlines()]
    return [line for line in lines if str(line.get("status", "")).lower().endswith(status)]


@pytest.fixture(scope="module")
def task() -> PrivatePCA:
    return PrivatePCA("synthetic", clients=5, rank=6, rows=3000)


def test_units_are_public_and_within_one() -> None:
    scale = scale_of("NSL-KDD")
    rows = np.zeros((3, len(FEATURES)))
    columns = [FEATURES.index(name) for name in ("src_bytes", "same_srv_rate", "count", "hot")]
    rows[0, columns] = 2.0**32, 0.25, 511.0, 1e9
    rows[1, columns] = 15.0, -3.0, 31.0, 15.0
    rows[2, columns] = np.nan
    found = scale(rows)[:, columns]
    np.testing.assert_allclose(found[0], [1.0, 0.25, 1.0, 1.0])
    expected = [np.log(16) / np.log1p(2.0**32), -1.0, np.log(32) / np.log(512), 0.5]
    np.testing.assert_allclose(found[1], expected)
    assert np.isnan(found[2]).all()
    np.testing.assert_allclose(scale_of("Shuttle")(np.array([[64.0, -500.0]])), [[0.5, -1.0]])
    # Linear, or a factor model would no longer be one.
    np.testing.assert_allclose(scale_of("synthetic")(np.array([[16.0, -8.0]])), [[0.5, -0.25]])


def test_judges_look_at_no_training_record(task: PrivatePCA) -> None:
    arrays = task.initial_arrays(Seeds(0))
    found = task.evaluate(arrays)
    other = PrivatePCA("synthetic", clients=5, rank=6, rows=3000)
    for rows in other._rows:
        rows.train[:] = 1e3
    assert other.evaluate(arrays) == found
    for rows in other._rows:
        rows.holdout[:, 0] *= 3.0
    changed = PrivatePCA.evaluate(other, arrays)
    assert changed == found, "judged once"
    assert {"residual_ratio", "auc"} <= set(found) and "f1" not in found
    held, train = len(task.held_out), len(task.training)
    assert held == 600 and train == 2400 == sum(site.size for site in task.sites)
    assert not set(map(bytes, task.held_out)) & set(map(bytes, task.training))


def test_a_ratio_of_one_is_the_least(task: PrivatePCA) -> None:
    arrays = {**task.initial_arrays(Seeds(0)), "subspace": task.central_subspace}
    assert task.evaluate(arrays)["residual_ratio"] == pytest.approx(1.0)
    centred = task.held_out - task.held_out.mean(axis=0)
    values = np.linalg.svd(centred, compute_uv=False)
    assert task.central_residual == pytest.approx(np.square(values[6:]).sum() / len(centred))
    assert 1.0 < report._judge(task, report._pca(task, task.training))[0] < 1.02


@pytest.mark.parametrize("holdout", [0.0, 1.0])
def test_records_have_to_be_held_out(holdout: float) -> None:
    with pytest.raises(ConfigError, match=r"task.holdout=.*would have to be paid for"):
        PrivatePCA("synthetic", holdout=holdout)


@pytest.mark.parametrize(
    ("epsilon", "noise"), [(8, 0.69), (3, 1.61), (1, 4.35), (0.5, 8.22), (0.25, 15.6), (0.1, 36.4)]
)
def test_the_noises_of_the_yaml_make_their_epsilon(epsilon: float, noise: float) -> None:
    found = planned(configuration(arm=f"eps-{epsilon:g}"))
    assert 0.99 * epsilon < found <= epsilon
    assert found == pytest.approx(exact_gaussian(noise / 1.25**0.5, DELTA), rel=1e-6)


@pytest.mark.parametrize("arm", ["rounds-8", "rounds-3", "rounds-1", "uncentred-1", "one_site-1"])
def test_other_ways_cost_the_same(arm: str) -> None:
    epsilon = float(arm.rpartition("-")[2])
    assert 0.99 * epsilon < planned(configuration(arm=arm)) <= epsilon


@pytest.mark.parametrize("variant", ["", "rounds"])
def test_a_run_spends_what_its_plan_says_and_its_ledger_what_was_done(
    tmp_path: Path, variant: str
) -> None:
    config = configuration(variant=variant)
    run = finish(tmp_path / "run", config)
    assert run.metric("privacy/record")[1][-1] == pytest.approx(planned(config), rel=1e-9)
    done = entries(tmp_path / "run", "committed")
    assert len(done) == len(run.rounds) == (5 if variant else 2)
    for entry, noise, clip in zip(
        done, [8.7, *([8.7] * 4 if variant else [4.35])], [1.0] + [0.5] * 4, strict=False
    ):
        mechanism = entry["mechanism"]
        assert mechanism["noise_multiplier"] == pytest.approx(noise)
        assert mechanism["sensitivity"] == pytest.approx(clip)
        assert mechanism["noise_std"] == pytest.approx(noise * clip)
        assert mechanism["rng"] == "os:chacha20"
        assert [charge["unit"] for charge in entry["charges"]] == ["record"]
    assert not any("objective" in name for event in run.rounds for name in event["metrics"])


WIDE = "phases.summary.privacy.clip=3.0"
"""So wide that nothing is clipped here."""


def test_the_noise_in_the_model_is_the_noise_of_the_ledger(tmp_path: Path) -> None:
    """Three models, less the one that no noise moved, against what five sites say they added."""
    exact = finish(tmp_path / "exact", configuration(variant="free")).arrays["covariance"]
    open_centre = ("phases.centre.privacy=null", "~privacy.budget")
    changes = (*open_centre, "privacy.allow_unprotected=true", WIDE)
    found = [
        finish(tmp_path / str(i), configuration(*changes)).arrays["covariance"] - exact
        for i in range(3)
    ]
    sites, rows, size = 5, 2400, len(exact)
    stated = entries(tmp_path / "0", "committed")[-1]["mechanism"]["noise_std"]
    assert stated == pytest.approx(4.35 * 3.0)
    upper = np.triu_indices(size, 1)
    values = np.concatenate([matrix[upper] for matrix in found]) * rows
    # 1683 values: six standard errors of a deviation are a tenth of it.
    assert np.std(values) == pytest.approx(stated * (sites / 2) ** 0.5, rel=0.1)
    diagonal = np.concatenate([np.diag(matrix) for matrix in found]) * rows
    assert np.std(diagonal) == pytest.approx(stated * sites**0.5, rel=0.35)


def test_it_is_the_same_again_only_with_seeded_noise(tmp_path: Path) -> None:
    def sha(name: str, *changes: str) -> str:
        return str(finish(tmp_path / name, configuration(*changes)).result["weights_sha256"])

    assert sha("a", *SEEDED) == sha("b", *SEEDED)
    assert sha("c") != sha("d")


def test_a_report_tells_what_was_spent(tmp_path: Path) -> None:
    config = configuration()
    runs = {
        "main": finish(tmp_path / "run", config),
        "wide": finish(tmp_path / "wide", configuration(WIDE)),
        "free": finish(tmp_path / "free", configuration(variant="free")),
    }
    task: Any = TaskCache()(config["task"])
    made = report.write(task, runs, tmp_path)
    assert [path.name for path in made.figures] == ["spectrum.png", "tradeoff.png"]
    rows = {row[0]: row[1:] for row in made.tables[0].rows}
    assert rows["main"][3] == pytest.approx(0.998, abs=1e-3) and rows["free"][3] == "∞"
    assert rows["main"][1:3] == (2, 4.35) and rows["free"][1:3] == (0, None)
    ratios = [float(str(row[4])) for row in rows.values()]
    assert min(ratios) >= 1.0 and ratios[-1] == max(ratios), "a random subspace is the worst"
    assert rows["free"][4] == pytest.approx(rows["PCA of all training records"][4], rel=1e-3)
    level = report.noise_norm(task, runs["wide"])
    noise = runs["wide"].arrays["covariance"] - runs["free"].arrays["covariance"]
    assert level == pytest.approx(np.linalg.norm(noise, 2), rel=0.3)
    assert report.noise_norm(task, runs["free"]) is None


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    monkeypatch.chdir(tmp_path)
    return Command(capsys)


@pytest.mark.parametrize(
    ("override", "code", "message"),
    [
        ("phases.summary.kernel=curvature", 2, "'curvature' cannot hide a record"),
        ("phases.centre.params.std=own", 2, "no noise covers a site's own deviations"),
        ("phases.centre.privacy=null", 2, "phase 'centre' has no privacy while others have"),
        ("+phases.summary.privacy.metrics=release", 2, "tells what clients measured"),
        ("+phases.summary.privacy.sample_rate=0.1", 2, "sums over all rows"),
        ("phases.summary.privacy.noise=0", 2, "without noise"),
        ("vars.noise=3", 7, "budget of 1"),
        ("task.holdout=0", 2, "task.holdout=0"),
    ],
)
def test_mistakes_are_told_before_a_run(
    command: Command, override: str, code: int, message: str
) -> None:
    told = command("simulate", "dp_federated_pca", *SMALL, override)
    assert told.code == code, told.err
    assert re.search(message, told.err), told.err
    assert command.runs() == []

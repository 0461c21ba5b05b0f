"""The baselines and the report of federated PCA, on runs of a few rounds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from fedalt.anomaly import standardise
from fedalt.build import TaskCache
from fedalt.config import variant_overrides
from fedalt.runs.folder import RunFolder
from fedalt.runs.report import Finished, Report, finished
from fedalt.runs.simulate import simulate
from fedalt.scenario import find_scenario
from fedalt.scenarios.federated_pca import baselines, report
from fedalt.scenarios.federated_pca.task import FederatedPCA
from fedalt.seeds import Seeds

TINY = ["task.data=synthetic", "task.rank=6", "task.rows=1000", "vars.consensus_rounds=5"]


@pytest.fixture(scope="module")
def task() -> FederatedPCA:
    return FederatedPCA(data="synthetic", rank=6, rows=1000)


def finish(folder: Path, *overrides: str, variant: str | None = None) -> Finished:
    scenario = find_scenario("federated_pca")
    extra = variant_overrides(scenario.config(), variant) if variant else []
    config = scenario.config([*TINY, *overrides, *extra, "compare=[]"])
    run = RunFolder(folder / (variant or "main"))
    run.create({**config, "compared": {}})
    simulate(config, run, TaskCache())
    return finished(run, variant or "main")


def written(task: FederatedPCA, runs: Mapping[str, Finished], folder: Path) -> Report:
    made = report.write(task, runs, folder)
    assert all(path.is_file() for path in made.figures)
    for table in made.tables:
        assert all(len(row) == len(table.columns) for row in table.rows), table.title
    return made


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finished]:
    folder = tmp_path_factory.mktemp("runs")
    names = (None, "power", "one_shot_exact", "fedpe")
    return {name or "main": finish(folder, variant=name) for name in names}


def test_no_pca_is_the_squared_norm(task: FederatedPCA) -> None:
    norms = np.square(standardise(task.records.test_x, *task.scaler)).sum(axis=1)
    aside = standardise(baselines.pooled_holdout(task), *task.scaler)
    limit = np.quantile(np.square(aside).sum(axis=1), baselines.QUANTILE)
    found = baselines.norm_only(task)
    normal = ~task.records.test_attack
    assert found["fpr"] == pytest.approx((norms[normal] > limit).mean())
    assert np.isnan(found["residual_ratio"])


def test_the_random_baseline_is_a_mean_of_draws(task: FederatedPCA) -> None:
    found = baselines.random_subspace(task, Seeds(0))
    assert found == baselines.random_subspace(task, Seeds(0))
    assert found["residual_ratio"] > 5.0
    assert 0.4 < found["auc"] < 0.6


def test_central_bounds_every_site_alone(task: FederatedPCA) -> None:
    central, local = baselines.central(task), baselines.local_only(task)
    assert central["residual_ratio"] == pytest.approx(1.0)
    assert local["residual_ratio"] > 1.0


def test_a_mean_leaves_out_what_is_not_defined() -> None:
    nan = float("nan")
    means = baselines.mean_of([{"a": 1.0, "b": nan}, {"a": 3.0, "b": nan}, {"a": nan, "b": nan}])
    assert means["a"] == 2.0
    assert np.isnan(means["b"])


def test_methods_stand_in_order(
    task: FederatedPCA, runs: dict[str, Finished], tmp_path: Path
) -> None:
    shuffled = {name: runs[name] for name in ("main", "power", "one_shot_exact", "fedpe")}
    made = written(task, shuffled, tmp_path)
    labels = [str(row[0]) for row in made.tables[0].rows]
    assert labels[:4] == [
        "FedPG (Grassmann)",
        "FedPE (Euclidean)",
        "power iteration",
        "one shot, exact covariance",
    ]
    assert labels[-1] == "central PCA"
    assert len(made.figures) == 4
    families = made.tables[1]
    assert families.rows[0][0] == "normal"
    assert sum(int(row[1] or 0) for row in families.rows) == len(task.records.test_x)


@pytest.mark.parametrize("names", [("main",), ("main", "fedpe"), ("main", "one_shot_exact")])
def test_any_choice_of_variants(
    task: FederatedPCA, runs: dict[str, Finished], tmp_path: Path, names: tuple[str, ...]
) -> None:
    made = written(task, {name: runs[name] for name in names}, tmp_path)
    assert len(made.tables[0].rows) == len(names) + 4


def test_the_main_run_is_named_after_its_kernel(task: FederatedPCA, tmp_path: Path) -> None:
    main = finish(tmp_path, variant="power")
    made = written(task, {"main": main}, tmp_path)
    assert made.tables[0].rows[0][0] == "power iteration"


def test_a_run_on_other_data_has_a_table_of_its_own(
    task: FederatedPCA, runs: dict[str, Finished], tmp_path: Path
) -> None:
    other = finish(tmp_path, "task.rank=3")
    made = written(task, {"main": runs["main"], "smaller": other}, tmp_path)
    assert "k = 3" in made.tables[1].title
    assert made.tables[1].rows[0][0] == "smaller"


def test_without_held_out_records_there_is_no_threshold(tmp_path: Path) -> None:
    schedule = "schedule={chain: [standardise, summary]}"
    main = finish(tmp_path, "task.holdout=0.0", schedule)
    task = FederatedPCA(data="synthetic", rank=6, rows=1000, holdout=0.0)
    made = written(task, {"main": main}, tmp_path)
    fpr = made.tables[0].columns.index("FPR")
    assert all(row[fpr] is None or np.isnan(float(row[fpr])) for row in made.tables[0].rows)
    assert any("no threshold" in note for note in made.tables[0].notes)
    assert len(made.figures) == 3  # no families


def test_a_run_cut_short_says_so(task: FederatedPCA, tmp_path: Path) -> None:
    made = written(task, {"main": finish(tmp_path, "rounds=3")}, tmp_path)
    assert made.tables[0].rows[0][made.tables[0].columns.index("F1")] is None
    assert any("ended before" in note for note in made.tables[0].notes)

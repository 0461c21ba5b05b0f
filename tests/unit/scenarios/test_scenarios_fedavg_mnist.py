"""FedAvg on digits: partitions, models, report; on the digits that scikit-learn carries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedalt.build import TaskCache
from fedalt.data import check_partition
from fedalt.errors import ConfigError
from fedalt.runs.folder import RunFolder
from fedalt.runs.report import Finished, finished
from fedalt.runs.simulate import simulate
from fedalt.scenario import find_scenario
from fedalt.scenarios.fedavg_mnist import report
from fedalt.scenarios.fedavg_mnist.task import MODELS, DigitsTask
from fedalt.seeds import Seeds

STRATEGY = "flwr.serverapp.strategy"


@pytest.fixture(autouse=True)
def no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEDALT_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def finish(folder: Path, *overrides: str) -> Finished:
    base = ["task.rows=600", "task.clients=5", "phases.train.clients.count=3", "rounds=2"]
    config = find_scenario("fedavg_mnist").config([*base, *overrides])
    run = RunFolder(folder / "run")
    run.create({**config, "compared": {}})
    simulate(config, run, TaskCache())
    return finished(run, "main")


@pytest.mark.parametrize("partition", ["iid", "dirichlet", "pathological"])
def test_every_partition_covers_the_images(partition: str) -> None:
    task = DigitsTask(partition=partition, clients=10, rows=1000)
    check_partition(task.parts, 1000)
    if partition == "pathological":
        assert max(len(np.unique(task.labels[part])) for part in task.parts) <= 4


@pytest.mark.parametrize("model", MODELS)
def test_models_start_from_the_seed_and_answer(model: str) -> None:
    task = DigitsTask(model=model, clients=3, rows=60)
    arrays = task.initial_arrays(Seeds(1))
    again, other = task.initial_arrays(Seeds(1)), task.initial_arrays(Seeds(2))
    assert list(arrays) == list(task.model().state_dict())
    for name, values in arrays.items():
        np.testing.assert_array_equal(values, again[name])
    assert any(not np.array_equal(arrays[name], other[name]) for name in arrays)
    assert 0.0 <= task.evaluate(arrays)["accuracy"] <= 0.5


def test_client_accuracy_is_weighted_to_the_whole() -> None:
    task = DigitsTask(clients=4, rows=400)
    arrays = task.initial_arrays(Seeds(0))
    sizes = np.array([site.size for site in task.sites])
    whole = DigitsTask(clients=1, rows=400)
    mean = float(sizes @ task.client_accuracy(arrays) / sizes.sum())
    assert mean == pytest.approx(whole.client_accuracy(arrays)[0], abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": "mpl"}, "mlp"),
        ({"data": "mnits"}, "mnist"),
        ({"partition": "dirichlit"}, "dirichlet"),
        ({"rows": 0}, "rows=0"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        DigitsTask(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        (f"strategy._target_={STRATEGY}.FedMedian",),
        (f"strategy._target_={STRATEGY}.FedProx", "+strategy.proximal_mu=0.1"),
        (f"strategy._target_={STRATEGY}.FedAdam",),
        ("task.model=logistic",),
    ],
)
def test_it_runs_and_reports_under_other_strategies(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    run = finish(tmp_path, *overrides)
    task = TaskCache()(run.config["task"])
    made = report.write(task, {"main": run}, tmp_path)
    assert all(path.is_file() for path in made.figures)
    row = dict(zip(made.tables[0].columns, made.tables[0].rows[0], strict=True))
    assert row["strategy"] == run.config["strategy"]["_target_"].rpartition(".")[2]
    worst, median, best = (float(row[f"{k} client"] or 0) for k in ("worst", "median", "best"))
    assert worst <= median <= best


def test_it_learns(tmp_path: Path) -> None:
    run = finish(tmp_path, "task.rows=1400", "rounds=10", "phases.train.clients.count=5")
    values = run.metric("server/accuracy")[1]
    assert values[-1] > max(0.6, values[0])


def test_a_private_run_leaves_out_what_is_computed_on_clients_own_images(tmp_path: Path) -> None:
    run = finish(
        tmp_path,
        "strategy._target_=fedalt.server.strategies.blockwise.Blockwise",
        "~strategy.fraction_evaluate",
        "phases.train.clients={mode: poisson, rate: 0.5}",
        "+phases.train.privacy={unit: client, clip: 0.5, noise: 1.0}",
        "privacy.delta=1e-2",
        "evaluate.clients_every=0",
    )
    assert report.private(run)
    made = report.write(TaskCache()(run.config["task"]), {"main": run}, tmp_path)
    table = made.tables[0]
    assert [path.name for path in made.figures] == ["accuracy.png"]
    assert not any("client" in column for column in table.columns)
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert any(
        note.endswith("left out: computed on clients' own images, which no account covers")
        for note in table.notes
    )
    assert not any("holds" in note for note in table.notes)

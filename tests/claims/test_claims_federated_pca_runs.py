"""One seed is one result, whatever stands beside it; other federations run too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from claims_pca import SYNTHETIC, Bench, configuration

from fedalt.build import TaskCache
from fedalt.cli.execute import execute
from fedalt.runs.folder import RunFolder

SHORT = (*SYNTHETIC, "task.rows=2000", "vars.consensus_rounds=5")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("runs"))


def hash_of(bench: Bench, *overrides: str, again: bool = False) -> str:
    return str(bench.run(*SHORT, *overrides, again=again).result["weights_sha256"])


def test_one_seed_one_hash_and_another_seed_another(bench: Bench) -> None:
    assert hash_of(bench) == hash_of(bench, again=True)
    assert hash_of(bench) != hash_of(bench, "seed=1")


def test_partial_participation_is_as_reproducible(bench: Bench) -> None:
    some = "phases.consensus.clients={mode: fraction, rate: 0.1}"
    assert hash_of(bench, some) == hash_of(bench, some, again=True) != hash_of(bench)


def test_judging_and_committing_more_often_change_nothing(bench: Bench) -> None:
    assert hash_of(bench) == hash_of(bench, "evaluate.server_every=1", "checkpoint.every=1")


def compared(folder: Path, names: list[str]) -> dict[str, str]:
    """Run a scenario with variants, as the command line does; return every hash."""
    config = configuration(*SHORT)
    planned = {name: configuration(*SHORT, variant=name) for name in names}
    run = RunFolder(folder)
    run.create({**config, "compared": planned})
    execute(run, TaskCache(), bar=False)
    results = {"main": run.path, **{name: run.variant(name).path for name in names}}
    return {
        name: json.loads((path / "result.json").read_text())["weights_sha256"]
        for name, path in results.items()
    }


def test_what_is_compared_beside_a_run_does_not_change_it(bench: Bench, tmp_path: Path) -> None:
    some = compared(tmp_path / "some", ["power", "fedpe"])
    other = compared(tmp_path / "other", ["fedpe", "one_shot_exact", "power"])
    assert some["main"] == other["main"] == hash_of(bench)
    assert some["fedpe"] == other["fedpe"]
    assert some["power"] == other["power"]
    assert len(set(other.values())) == len(other)


@pytest.mark.parametrize("partition", ["sorted", "dirichlet", "iid"])
def test_fifty_clients_run_under_every_partition(bench: Bench, partition: str) -> None:
    run = bench.run(*SYNTHETIC, "task.clients=50", f"task.partition={partition}")
    assert len(bench.task(run).sites) == 50
    assert bench.judge(run)["residual_ratio"] < 1.1

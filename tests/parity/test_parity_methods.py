"""Promise: methods against forgetting keep one seed at one hash: workers, stops and layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from federations import LeastSquares, Stop, federate, settings

from fedalt.runs.checkpoint import Snapshot

METHODS: dict[str, dict[str, Any]] = {
    "penalties": {"ewc_lambda": 0.2, "si_c": 0.05},
    "memories": {"replay_memory": 8, "replay_batch": 3, "agem_memory": 5},
}


class Streamed(LeastSquares):
    """Three tasks of each client's: its rows, its rows with signs turned, and shifted."""

    protocol = "domain-incremental"
    tasks = ("as they are", "turned", "shifted")

    def task_rows(self, site: int, task: int) -> int:
        return self.sizes[site]

    def task_data(self, site: int, task: int, rows: np.ndarray) -> tuple[torch.Tensor, ...]:
        x, y = self.x[site][rows], self.y[site][rows]
        return torch.from_numpy((x, -x, x + 1.0)[task]), torch.from_numpy(y)


def run(
    place: Path, params: dict[str, Any], stop_at: int | None = None, **engine: Any
) -> tuple[str, Snapshot]:
    """Run, or go on with, a stream of three tasks in two rounds each."""
    phase = {"kernel": "gradient", "epochs": 2, "batch_size": 4, "params": {"lr": 0.05, **params}}
    result, snapshot = federate(
        Streamed(),
        place,
        stop_at,
        rounds=9,
        phases={"train": phase},
        schedule={"stream": {"of": "train", "tasks": 3, "rounds": 2, "new": 9, "order": "shift"}},
        engine={**settings()["engine"], **engine},
    )
    return result["weights_sha256"], snapshot


def assert_same(found: tuple[str, Snapshot], wanted: tuple[str, Snapshot]) -> None:
    assert found[0] == wanted[0]
    assert set(found[1].clients) == set(wanted[1].clients)
    for site, state in wanted[1].clients.items():
        assert set(found[1].clients[site]) == set(state)
        assert all(np.array_equal(found[1].clients[site][n], v) for n, v in state.items())


@pytest.mark.parametrize("name", METHODS)
def test_any_number_of_workers_gives_the_same_weights_and_states(tmp_path: Path, name: str) -> None:
    one = run(tmp_path / "one", METHODS[name], workers=1)
    assert_same(run(tmp_path / "two", METHODS[name], workers=2), one)
    assert run(tmp_path / "plain", {})[0] != one[0]


@pytest.mark.parametrize("stop_at", [2, 3])
@pytest.mark.parametrize("name", METHODS)
def test_a_resumed_run_ends_on_the_same_weights_and_states(
    tmp_path: Path, name: str, stop_at: int
) -> None:
    """Stopped just before a task ends for the clients, and just after."""
    whole = run(tmp_path / "whole", METHODS[name])
    with pytest.raises(Stop):
        run(tmp_path / "stopped", METHODS[name], stop_at=stop_at)
    assert_same(run(tmp_path / "stopped", METHODS[name]), whole)


def test_a_method_that_is_off_changes_not_one_bit(tmp_path: Path) -> None:
    off = {"ewc_lambda": 0.0, "si_c": 0.0, "replay_memory": 0, "agem_memory": 0, "lwf_alpha": 0.0}
    assert_same(run(tmp_path / "off", off), run(tmp_path / "plain", {}))


def test_channels_last_rounds_as_little_with_methods_as_without(tmp_path: Path) -> None:
    """That mode takes the reference's steps, so methods belong to it."""
    params = {**METHODS["penalties"], **METHODS["memories"]}
    _, wanted = run(tmp_path / "sequential", params)
    _, found = run(tmp_path / "channels", params, mode="channels_last")
    for site, state in wanted.clients.items():
        for name, value in state.items():
            np.testing.assert_allclose(found.clients[site][name], value, atol=1e-6)

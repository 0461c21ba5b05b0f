"""Promise: one seed, one hash, for every number of worker processes, in every mode."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from federations import LeastSquares, federate, settings
from torch import nn

from fedalt.clients.workers import split
from fedalt.errors import QuorumError

ENGINE = settings()["engine"]
KEPT = {"kernel": "gradient", "epochs": 2, "batch_size": 4}


def phases(**params: Any) -> dict[str, Any]:
    return {"train": {**KEPT, "params": {"lr": 0.05, **params}}}


@pytest.mark.parametrize("mode", ["sequential", "batched:3"])
@pytest.mark.parametrize("params", [{}, {"momentum": 0.9, "optimizer_state": "persist"}])
def test_any_number_of_workers_gives_the_same_weights_and_states(
    tmp_path: Path, mode: str, params: dict[str, Any]
) -> None:
    found = []
    for workers in (1, 2, 3):
        engine = {**ENGINE, "mode": mode, "workers": workers}
        place = tmp_path / str(workers)
        result, snapshot = federate(LeastSquares(), place, phases=phases(**params), engine=engine)
        found.append((result["weights_sha256"], snapshot))
    assert len({weights for weights, _ in found}) == 1
    first = found[0][1]
    for _, other in found[1:]:
        assert set(other.clients) == set(first.clients)
        for site, state in first.clients.items():
            assert all(np.array_equal(other.clients[site][n], v) for n, v in state.items())


class Deadly(LeastSquares):
    """The process that trains site 2 is killed, ``times`` times in all."""

    def __init__(self, mark: Path, times: int) -> None:
        super().__init__()
        self.mark, self.times, self.driver = mark, times, os.getpid()

    def site_data(self, site: int) -> tuple[torch.Tensor, ...]:
        deaths = len(self.mark.read_text()) if self.mark.exists() else 0
        if site == 2 and deaths < self.times and os.getpid() != self.driver:
            with self.mark.open("a") as file:
                file.write("x")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().site_data(site)


def test_a_killed_worker_is_replaced_and_its_clients_run_again(tmp_path: Path) -> None:
    engine = {**ENGINE, "workers": 2}
    task = Deadly(tmp_path / "deaths", times=1)
    result, _ = federate(task, tmp_path / "killed", phases=phases(), engine=engine)
    whole, _ = federate(LeastSquares(), tmp_path / "whole", phases=phases())
    assert (tmp_path / "deaths").read_text() == "x"
    assert result["weights_sha256"] == whole["weights_sha256"]


def test_clients_whose_workers_keep_dying_are_refused_by_name(tmp_path: Path) -> None:
    engine = {**ENGINE, "workers": 2}
    task = Deadly(tmp_path / "deaths", times=99)
    with pytest.raises(QuorumError, match=r"site 2: its worker process died 2 times"):
        federate(task, tmp_path / "run", phases=phases(), engine=engine)


class Wrong(LeastSquares):
    """Site 3 raises."""

    def loss(self, model: nn.Module, batch: tuple[torch.Tensor, ...]) -> Any:
        if len(self.x[3]) in {len(batch[0])}:
            raise LookupError("no such ward")
        return super().loss(model, batch)


def test_an_error_in_a_worker_is_told_as_if_it_were_here(tmp_path: Path) -> None:
    whole = {"train": {**KEPT, "batch_size": 10_000, "params": {"lr": 0.1}}}
    engine = {**ENGINE, "workers": 2}
    with pytest.raises(QuorumError, match="no such ward"):
        federate(Wrong(), tmp_path / "run", phases=whole, engine=engine)


def test_no_worker_outlives_its_run(tmp_path: Path) -> None:
    engine = {**ENGINE, "workers": 3}
    federate(LeastSquares(), tmp_path / "run", phases=phases(), engine=engine)
    end = time.monotonic() + 5
    while (left := _children()) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left


def _children() -> list[int]:
    tasks = Path(f"/proc/{os.getpid()}/task")
    lists = [(task / "children").read_text().split() for task in tasks.iterdir()]
    return [int(child) for found in lists for child in found]


def test_the_split_is_even_and_complete() -> None:
    sizes = [50, 9, 7, 40, 30, 1, 1, 0]
    parts = split(sizes, 3)
    assert sorted(place for part in parts for place in part) == list(range(len(sizes)))
    loads = [sum(sizes[p] for p in part) for part in parts]
    assert max(loads) - min(loads) <= 10
    assert split([], 2) == [[], []]

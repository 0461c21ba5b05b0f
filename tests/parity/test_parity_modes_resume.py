"""Promise: a run that was stopped ends on the same hash, in whatever mode it was computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federations import LeastSquares, settings

from fedalt.runs.checkpoint import newest_checkpoint
from fedalt.runs.folder import RunFolder
from fedalt.runs.simulate import simulate


class Stop(Exception):
    """Ends a run from outside."""


def run(place: Path, mode: str, stop_at: int | None = None) -> tuple[dict[str, Any], Any]:
    """Run, or go on with, a federation whose clients keep their momentum."""
    params = {"lr": 0.05, "momentum": 0.9, "optimizer_state": "persist"}
    phase = {"kernel": "gradient", "epochs": 2, "batch_size": 4, "params": params}
    engine = {**settings()["engine"], "mode": mode}
    config = settings(rounds=5, phases={"train": phase}, engine=engine)
    folder = RunFolder(place)
    if not (place / "config.json").exists():
        folder.create(config)

    def hear(event: Any) -> None:
        if event["event"] == "committed" and event["round"] == stop_at:
            raise Stop

    result = simulate(config, folder, lambda spec: LeastSquares(), [hear])  # type: ignore[arg-type]
    return result, newest_checkpoint(folder.checkpoints)[0]


@pytest.mark.parametrize("mode", ["auto", "batched:3"])
def test_a_resumed_run_ends_on_the_same_weights_and_states(tmp_path: Path, mode: str) -> None:
    whole, first = run(tmp_path / "whole", mode)
    with pytest.raises(Stop):
        run(tmp_path / "stopped", mode, stop_at=2)
    resumed, second = run(tmp_path / "stopped", mode)
    assert resumed["weights_sha256"] == whole["weights_sha256"]
    assert set(second.clients) == set(first.clients)
    for site, state in first.clients.items():
        assert all(np.array_equal(second.clients[site][n], v) for n, v in state.items())

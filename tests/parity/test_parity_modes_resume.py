"""Promise: a run that was stopped ends on the same hash, in whatever mode it was computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federations import LeastSquares, Stop, federate, settings


def run(place: Path, mode: str, stop_at: int | None = None) -> tuple[dict[str, Any], Any]:
    """Run, or go on with, a federation whose clients keep their momentum."""
    params = {"lr": 0.05, "momentum": 0.9, "optimizer_state": "persist"}
    phase = {"kernel": "gradient", "epochs": 2, "batch_size": 4, "params": params}
    engine = {**settings()["engine"], "mode": mode}
    changes = {"rounds": 5, "phases": {"train": phase}, "engine": engine}
    return federate(LeastSquares(), place, stop_at, **changes)


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

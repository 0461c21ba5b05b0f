"""Metrics reach TensorBoard when asked for, and only then."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from federations import LeastSquares, federate


def test_metrics_are_written_as_scalars(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        # tensorboard's own imports warn; our code is what is under test.
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        result, _ = federate(LeastSquares(), tmp_path / "run", rounds=3, tensorboard=True)
        reader = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
        reader.Reload()
    scalars = reader.Scalars("server/loss")
    assert [s.step for s in scalars] == [1, 2, 3]
    assert scalars[-1].value == pytest.approx(result["metrics"]["server/loss"], rel=1e-6)


def test_nothing_is_written_unasked(tmp_path: Path) -> None:
    federate(LeastSquares(), tmp_path / "run", rounds=1)
    assert not (tmp_path / "run" / "tensorboard").exists()

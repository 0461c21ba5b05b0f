"""TensorBoard hears every round once, also of a run that was stopped and taken up again."""

from __future__ import annotations

from pathlib import Path

import pytest
from federations import LeastSquares, federate, settings

from fedalt.runs.folder import RunFolder
from fedalt.runs.simulate import simulate


class Stopped(Exception):
    """In place of a process's end."""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_hears_each_round_once(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, task = RunFolder(tmp_path / "run"), LeastSquares()
    run.create(settings(rounds=5, tensorboard=True, checkpoint={"every": 2, "keep": 2}))

    def stop(event: object) -> None:
        if event["event"] == "planned" and event["round"] == 4:  # type: ignore[index]
            raise Stopped

    with pytest.raises(Stopped):
        simulate(run.config(), run, lambda spec: task, [stop])  # type: ignore[arg-type]
    result = simulate(run.config(), run, lambda spec: task)  # type: ignore[arg-type]
    told = EventAccumulator(str(run.path / "tensorboard"))
    told.Reload()
    points = told.Scalars("server/loss")
    assert [point.step for point in points] == [1, 2, 3, 4, 5]
    assert points[-1].value == pytest.approx(result["metrics"]["server/loss"])
    whole, _ = federate(LeastSquares(), tmp_path / "whole", rounds=5)
    assert whole["weights_sha256"] == result["weights_sha256"]

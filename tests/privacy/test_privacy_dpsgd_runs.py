"""Promise: record-level privacy holds in whole runs: worker processes, resuming, every mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federations import LeastSquares, Stop, federate, settings

from fedalt.alternation.phase import Phase
from fedalt.alternation.privacy_spec import PrivacySpec
from fedalt.clients.kernels import KernelTable
from fedalt.clients.kernels.base import Order, SiteContext
from fedalt.clients.workers import Pool
from fedalt.privacy.site_account import KEY
from fedalt.seeds import Seeds

ENGINE = settings()["engine"]
PRIVACY = {"unit": "record", "clip": 0.5, "noise": 1.5, "rng": "seeded", "sample_rate": 0.25}


def phases(**changes: Any) -> dict[str, Any]:
    train = {"kernel": "gradient", "steps": 5, "batch_size": 4, "params": {"lr": 0.05}}
    return {"train": {**train, "privacy": {**PRIVACY, **changes}}}


@pytest.mark.parametrize("mode", ["sequential", "batched:3"])
def test_a_resumed_run_ends_as_one_that_never_stopped(tmp_path: Path, mode: str) -> None:
    engine = {**ENGINE, "mode": mode}
    whole, snapshot = federate(LeastSquares(), tmp_path / "a", phases=phases(), engine=engine)
    with pytest.raises(Stop):
        federate(LeastSquares(), tmp_path / "b", stop_at=2, phases=phases(), engine=engine)
    rest, again = federate(LeastSquares(), tmp_path / "b", phases=phases(), engine=engine)
    assert rest["weights_sha256"] == whole["weights_sha256"]
    for site, state in snapshot.clients.items():
        # Three rounds of five steps.
        np.testing.assert_array_equal(state[KEY], [[0.25, 1.5, 1.0, 15.0]])
        assert all(np.array_equal(again.clients[site][n], v) for n, v in state.items())


@pytest.mark.parametrize("mode", ["sequential", "batched:3"])
def test_worker_processes_do_the_same_work(mode: str) -> None:
    task, kernels = LeastSquares(), KernelTable()
    phase = Phase(
        "train", steps=5, batch_size=4, params={"lr": 0.05}, privacy=PrivacySpec(**PRIVACY)
    )
    start = task.initial_arrays(Seeds(0))
    order = Order("run", 1, phase, start, tuple(start), mode=mode, workers=2)

    def sites() -> list[SiteContext]:
        return [SiteContext(task, i, {}, Seeds(4).at("client", i)) for i in range(5)]

    kernel: Any = kernels("gradient")
    ours, theirs = sites(), sites()
    alone = list(kernel.cohort(order, ours))
    pool = Pool(2, task, kernels, lambda o, s: list(kernel.cohort(o, s)))
    try:
        found = pool(order, theirs)
    finally:
        pool.close()
    for work, wanted, site, own in zip(found, alone, theirs, ours, strict=True):
        assert not isinstance(work, Exception), work
        for name, values in wanted.arrays.items():
            np.testing.assert_allclose(work.arrays[name], values, rtol=0, atol=1e-12)
        assert np.array_equal(site.state[KEY], own.state[KEY])
        assert work.applied == wanted.applied

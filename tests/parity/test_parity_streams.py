"""Streams: one seed gives one hash, for any number of workers and after a kill and a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federations import BLOCKWISE, Stop, federate, settings
from stream_tasks import ToyStream

ENGINE = settings()["engine"]


def config(order: str = "shuffle", **params: Any) -> dict[str, Any]:
    """A stream with everything there is: its own orders, environments, sampled clients."""
    clients = {"mode": "fixed", "count": 3}
    learn = {"epochs": 2, "batch_size": 8, "clients": clients, "params": {"lr": 0.1, **params}}
    body = {
        "of": "learn",
        "tasks": 4,
        "new": 20,
        "rounds": 2,
        "rehearsal": 0.5,
        "order": order,
        "environment": ["inverse_lag", "uniform", "none"],
    }
    return {
        "rounds": 100,
        "phases": {"learn": learn},
        "schedule": {"stream": body},
        "strategy": BLOCKWISE,
    }


def toy() -> ToyStream:
    return ToyStream(rows=(30, 25, 40, 30))


@pytest.mark.parametrize(
    "params", [{}, {"ewc_lambda": 1.0, "replay_memory": 12, "momentum": 0.5}], ids=["plain", "ewc"]
)
def test_any_number_of_workers_gives_one_hash(tmp_path: Path, params: dict[str, Any]) -> None:
    found = [
        federate(
            toy(),
            tmp_path / str(workers),
            engine={**ENGINE, "mode": "sequential", "workers": workers},
            **config(**params),
        )
        for workers in (1, 2)
    ]
    assert len({result["weights_sha256"] for result, _ in found}) == 1
    first, other = (snapshot.clients for _, snapshot in found)
    assert first.keys() == other.keys()
    for site, state in first.items():
        assert all(np.array_equal(other[site][name], values) for name, values in state.items())


@pytest.mark.parametrize("at", [1, 2, 5])
@pytest.mark.parametrize("params", [{}, {"si_c": 0.1, "agem_memory": 8}], ids=["plain", "si+agem"])
def test_a_stream_stopped_anywhere_goes_on_with_what_its_clients_had_seen(
    tmp_path: Path, at: int, params: dict[str, Any]
) -> None:
    whole, _ = federate(toy(), tmp_path / "whole", **config(**params))
    with pytest.raises(Stop):
        federate(toy(), tmp_path / "stopped", at, **config(**params))
    again, _ = federate(toy(), tmp_path / "stopped", **config(**params))
    assert again["weights_sha256"] == whole["weights_sha256"]
    assert again["round"] == whole["round"] == 8


def test_another_seed_or_environment_is_another_run(tmp_path: Path) -> None:
    """The hash tells them apart, so that equal hashes above mean something."""
    hashes = set()
    for number, changes in enumerate(({}, {"seed": 9}, {"schedule": None})):
        whole = {**config(), **changes}
        if changes.get("schedule", "") is None:
            whole["schedule"] = {
                "stream": {**config()["schedule"]["stream"], "environment": "none"}
            }
        hashes.add(federate(toy(), tmp_path / str(number), **whole)[0]["weights_sha256"])
    assert len(hashes) == 3

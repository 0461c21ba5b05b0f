"""A federation of very many clients with lazy data, in a process of its own.

    python tests/many_clients.py CLIENTS ROUNDS FOLDER [persist]

Prints JSON: CPU seconds from after importing torch to the first round, CPU milliseconds a
client-round, the peak of resident memory in MiB, the hash, and the contexts left.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

START = time.process_time()

from fedalt.alternation import Block, LazySites  # noqa: E402
from fedalt.runs.folder import RunFolder  # noqa: E402
from fedalt.runs.simulate import simulate  # noqa: E402
from fedalt.seeds import Seeds  # noqa: E402

COHORT = 100


class Many:
    """Logistic regression on 28 × 28 images; a client's rows are a window of shared ones."""

    blocks: tuple[Block, ...] = ()

    def __init__(self, clients: int) -> None:
        rng = Seeds(0).numpy()
        self.sizes = rng.integers(50, 101, clients)
        self.sites = LazySites(self.sizes)
        self.x = torch.from_numpy(rng.random((2000, 784), dtype=np.float32))
        self.y = torch.from_numpy(rng.integers(0, 10, 2000))

    def model(self) -> nn.Module:
        return nn.Linear(784, 10)

    def initial_arrays(self, seeds: Seeds) -> dict[str, np.ndarray]:
        return {"weight": np.zeros((10, 784), np.float32), "bias": np.zeros(10, np.float32)}

    def site_data(self, site: int) -> tuple[torch.Tensor, ...]:
        rows = slice(7 * site % 1900, 7 * site % 1900 + int(self.sizes[site]))
        return self.x[rows], self.y[rows]

    def loss(
        self, model: nn.Module, batch: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        return nn.functional.cross_entropy(model(batch[0]), batch[1]), {}

    def evaluate(self, arrays: Any) -> dict[str, float]:
        return {}


def config(rounds: int, persist: bool, limit_mb: float) -> dict[str, Any]:
    """A run's settings; each client does four steps."""
    params: dict[str, Any] = {"lr": 0.1}
    if persist:
        params |= {"momentum": 0.9, "optimizer_state": "persist"}
    clients = {"mode": "fixed", "count": COHORT}
    phase = {"kernel": "gradient", "batch_size": 10, "steps": 4, "clients": clients}
    return {
        "name": "many",
        "seed": 0,
        "rounds": rounds,
        "quorum": 1.0,
        "task": {},
        "phases": {"train": {**phase, "params": params}},
        "schedule": {"repeat": {"of": "train"}},
        "strategy": {"_target_": "fedalt.server.strategies.blockwise.Blockwise"},
        "evaluate": {"clients_every": 0, "server_every": 0},
        "engine": {
            "name": "local",
            "device": "cpu",
            "timeout": None,
            "mode": "sequential",
            "state_limit_mb": limit_mb,
        },
        "checkpoint": {"every": 1, "keep": 2},
        "tensorboard": False,
        "profile": False,
        "compared": {},
    }


def main(clients: int, rounds: int, place: Path, persist: bool) -> dict[str, Any]:
    """Run it and return what is printed."""
    torch.set_num_threads(1)
    task, marks = Many(clients), []

    def hear(event: Any) -> None:
        marks.append((event["event"], time.process_time()))

    folder = RunFolder(place)
    # 3 MB a cohort: the limit holds two cohorts' states.
    settings = config(rounds, persist, limit_mb=6)
    folder.create(settings)
    result = simulate(settings, folder, lambda spec: task, [hear])  # type: ignore[arg-type]
    first = next(when for name, when in marks if name == "planned")
    return {
        "start_s": first - START,
        "ms": 1000 * (marks[-1][1] - first) / (rounds * COHORT),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "weights_sha256": result["weights_sha256"],
    }


if __name__ == "__main__":
    numbers = main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), "persist" in sys.argv)
    print(json.dumps(numbers))

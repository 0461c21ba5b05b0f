"""How long a client-round takes on the in-process engine, beside a bare torch loop.

    make bench                     prints a table and stores bench.json
    python tests/benchmarks/bench_engine.py --rounds 5 --repeat 3

The work: 28 × 28 grey images, clients of 50 to 100 samples, batch 10, one local epoch, SGD 0.1,
federated averaging weighted by samples, 100 of 1000 clients a round. The bare loop does the
same training with a fresh model and optimiser for each client, and no federation around it.
The two alternate and medians are shown, since machines are shared; the ratio is what counts.
This is no test: it asserts nothing about time.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fedalt.alternation.block import Block
from fedalt.alternation.site import Site
from fedalt.config import Settings
from fedalt.runs.folder import RunFolder
from fedalt.runs.simulate import simulate
from fedalt.scenarios.fedavg_mnist.task import network
from fedalt.seeds import Seeds

CLIENTS, COHORT, BATCH, LR = 1000, 100, 10, 0.1


class BenchTask:
    """Random images among 1000 clients: values do not change what a step costs."""

    def __init__(self, model: str) -> None:
        rng = Seeds(0).at("bench").numpy()
        self.model_name = model
        self.blocks: tuple[Block, ...] = ()
        sizes = rng.integers(50, 101, CLIENTS)
        self.sites = [Site(i, f"client-{i}", int(n)) for i, n in enumerate(sizes)]
        self.ends = np.concatenate([[0], np.cumsum(sizes)])
        self.x = torch.from_numpy(rng.random((int(sizes.sum()), 1, 28, 28), dtype=np.float32))
        self.y = torch.from_numpy(rng.integers(0, 10, int(sizes.sum())))

    def model(self) -> nn.Module:
        """Build the network."""
        return network(self.model_name)

    def initial_arrays(self, seeds: Seeds) -> dict[str, np.ndarray]:
        """Return small seeded weights."""
        rng = seeds.numpy()
        state = self.model().state_dict()
        return {k: (0.05 * rng.standard_normal(v.shape)).astype("f4") for k, v in state.items()}

    def site_data(self, site: int) -> tuple[torch.Tensor, ...]:
        """Return a client's images and labels."""
        rows = slice(int(self.ends[site]), int(self.ends[site + 1]))
        return self.x[rows], self.y[rows]

    def loss(
        self, model: nn.Module, batch: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the mean cross-entropy."""
        return nn.functional.cross_entropy(model(batch[0]), batch[1]), {}

    def evaluate(self, arrays: Any) -> dict[str, float]:
        """Judge nothing."""
        return {}


def fedalt_run(task: BenchTask, rounds: int) -> float:
    """Return CPU milliseconds a client-round on the engine, everything but the start included."""
    config = {
        **{k: v for k, v in vars(Settings()).items() if not hasattr(v, "__dataclass_fields__")},
        "name": "bench",
        "rounds": rounds,
        "phases": {
            "train": {
                "batch_size": BATCH,
                "clients": {"mode": "fixed", "count": COHORT},
                "params": {"lr": LR},
            }
        },
        "schedule": {"repeat": {"of": "train"}},
        "strategy": {"_target_": "flwr.serverapp.strategy.FedAvg", "fraction_evaluate": 0.0},
        "evaluate": {"clients_every": 0, "server_every": 0},
        "engine": {"name": "local", "device": "cpu", "timeout": None},
        "checkpoint": {"every": rounds, "keep": 1},
    }
    times: list[float] = []

    def hear(event: Any) -> None:
        if event["event"] in ("begin", "end"):
            times.append(time.process_time())

    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(Path(place) / "run")
        folder.create(config)
        simulate(config, folder, lambda spec: task, [hear])  # type: ignore[arg-type]
    return 1000 * (times[-1] - times[0]) / (rounds * COHORT)


def bare_run(task: BenchTask, rounds: int) -> float:
    """Return CPU milliseconds a client-round of training alone, model and optimiser fresh."""
    server = task.model()
    start = time.process_time()
    for number in range(rounds):
        chosen = Seeds(1).at(number).numpy().choice(CLIENTS, COHORT, replace=False)
        for site in chosen:
            model = copy.deepcopy(server)
            optimiser = torch.optim.SGD(model.parameters(), lr=LR)
            x, y = task.site_data(int(site))
            for rows in torch.randperm(len(y)).split(BATCH):
                optimiser.zero_grad()
                task.loss(model, (x[rows], y[rows]))[0].backward()
                optimiser.step()
    return 1000 * (time.process_time() - start) / (rounds * COHORT)


def main() -> None:
    """Run the benchmark and print its table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--repeat", type=int, default=5, help="alternating pairs; medians shown")
    options.add_argument("--out", type=Path, default=Path("bench.json"))
    chosen = options.parse_args()
    torch.set_num_threads(1)
    runs: dict[str, Callable[[BenchTask, int], float]] = {"fedalt": fedalt_run, "bare": bare_run}
    results: dict[str, dict[str, float]] = {}
    print(f"{'work':<10}{'fedalt ms':>12}{'bare torch ms':>15}{'ratio':>8}   (CPU, a client-round)")
    for model in ("logistic", "mlp"):
        task = BenchTask(model)
        found: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(chosen.repeat):
            for name, run in runs.items():
                found[name].append(run(task, chosen.rounds))
        ratios = [a / b for a, b in zip(found["fedalt"], found["bare"], strict=True)]
        row = {name: statistics.median(values) for name, values in found.items()}
        results[model] = {**row, "ratio": statistics.median(ratios)}
        print(
            f"{model:<10}{row['fedalt']:>12.2f}{row['bare']:>15.2f}{results[model]['ratio']:>8.2f}"
        )
    chosen.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Train exported streams with Avalanche and print a line of JSON for each; see continual_streams.

python continual_peer.py --seed 3 naive:none.npz cumulative:upper.npz given:none.npz

R[e][j] is the accuracy on task j after experience e. ``cumulative`` is given an experience's
new rows alone and keeps the earlier ones itself; ``given`` takes the batches in the file.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from typing import Any

import avalanche_naive as peer
import numpy as np
import torch
from avalanche.training.determinism.rng_manager import RNGManager
from nets import perceptron


def main() -> None:
    """Run all and print."""
    options = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    options.add_argument("jobs", nargs="+", metavar="STRATEGY:FILE")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--lr", type=float, default=1e-3)
    options.add_argument("--batch", type=int, default=64)
    chosen = options.parse_args()
    torch.set_num_threads(1)
    for job in chosen.jobs:
        kind, _, path = job.partition(":")
        with np.load(path) as stored:
            stream = dict(stored)
        RNGManager.set_random_seeds(chosen.seed)
        told = learn(kind, stream, chosen.lr, chosen.batch)
        print(json.dumps({"job": job, **told}), flush=True)


def learn(kind: str, stream: Mapping[str, np.ndarray], lr: float, batch: int) -> dict[str, Any]:
    """Return R, the steps of each experience, and the seconds that training took."""
    count, tasks = (sum(key.startswith(part) for key in stream) for part in ("x_", "test_x_"))
    rows = [int(stream["new"][e]) if kind == "cumulative" else None for e in range(count)]
    train = [(stream[f"x_{e}"][: rows[e]], stream[f"y_{e}"][: rows[e]]) for e in range(count)]
    test = [(stream[f"test_x_{j}"], stream[f"test_y_{j}"]) for j in range(tasks)]
    made = peer.benchmark(train, test)
    weights = {k.partition("/")[2]: v for k, v in stream.items() if k.startswith("initial/")}
    limit = peer.Limit(int(stream["steps"]))
    learner = peer.strategy(kind, perceptron(weights), limit, lr, batch)
    learner.batches = [batches(stream, e) for e in range(count)]
    matrix, seconds = [], 0.0
    for experience in made.train_stream:
        start = time.perf_counter()
        learner.train(experience, reset_optimizer_state=True)
        seconds += time.perf_counter() - start
        matrix.append(peer.accuracies(learner, made.test_stream, tasks))
    return {"matrix": matrix, "steps": limit.steps, "seconds": seconds}


def batches(stream: Mapping[str, np.ndarray], experience: int) -> list[list[int]]:
    """Return an experience's batches as lists of row numbers."""
    order, sizes = stream[f"order_{experience}"], stream[f"sizes_{experience}"]
    return [part.tolist() for part in np.split(order, np.cumsum(sizes)[:-1])]


if __name__ == "__main__":
    main()

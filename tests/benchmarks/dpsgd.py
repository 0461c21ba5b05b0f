"""What a step of DP-SGD costs against a plain one, in each way to single rows' gradients.

    python tests/benchmarks/dpsgd.py                       logistic, CNN and MLP
    python tests/benchmarks/dpsgd.py --works mlp --repeat 9

The kernel itself trains one client: a step holds sampling, clipping, noise from the operating
system and the update. Plain and private runs take turns, since machines are shared and noisy, and
a ratio compares runs of one turn. Prints a table and stores dpsgd.json; asserts nothing about
time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from engines import ROOT
from rich.console import Console
from rich.table import Table
from torch import nn

from fedalt.alternation.block import Block
from fedalt.alternation.phase import Phase
from fedalt.alternation.privacy_spec import PrivacySpec
from fedalt.alternation.site import Site
from fedalt.clients.kernels.base import Order, SiteContext
from fedalt.clients.kernels.gradient import GradientKernel
from fedalt.seeds import Seeds

WAYS = ("plain", "ghost", "hooks", "functorch", "auto")


def logistic() -> nn.Module:
    """784 pixels to 10 classes: 7 850 parameters."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


def cnn() -> nn.Module:
    """Two convolutions of stride 2 and two dense layers: about 26 000 parameters."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 16, 8, 2, padding=3),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2, 1),
            conv2=nn.Conv2d(16, 32, 4, 2),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2, 1),
            flat=nn.Flatten(),
            fc1=nn.Linear(512, 32),
            relu3=nn.ReLU(),
            fc2=nn.Linear(32, 10),
        )
    )


def mlp() -> nn.Module:
    """784, 512, 512, 10: 669 706 parameters."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, 10),
    )


WORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "logistic": (logistic, (10,)),
    "cnn": (cnn, (64, 128)),
    "mlp": (mlp, (64, 128)),
}


@dataclass(frozen=True, eq=False)
class Pictures:
    """One site of random pictures of 28 × 28 in ten classes."""

    build: Callable[[], nn.Module]
    rows: int = 2560
    blocks: Sequence[Block] = ()

    @property
    def sites(self) -> Sequence[Site]:
        return [Site(0, "site", self.rows)]

    def model(self) -> nn.Module:
        return self.build()

    def loss(self, model: nn.Module, batch: tuple[torch.Tensor, ...]) -> tuple[Any, dict[str, Any]]:
        return nn.functional.cross_entropy(model(batch[0]), batch[1]), {}

    def initial_arrays(self, seeds: Seeds) -> dict[str, np.ndarray]:
        rng = seeds.numpy()
        return {
            name: (0.05 * rng.standard_normal(tensor.shape)).astype(np.float32)
            for name, tensor in self.build().state_dict().items()
        }

    def site_data(self, site: int) -> tuple[torch.Tensor, ...]:
        rng = np.random.default_rng(0)
        x = rng.standard_normal((self.rows, 1, 28, 28)).astype(np.float32)
        return torch.from_numpy(x), torch.from_numpy(rng.integers(0, 10, self.rows))

    def evaluate(self, arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
        return {}


def main() -> None:
    """Time what was asked for, print the table and store it."""
    chosen = _options().parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for name in chosen.works:
        build, sizes = WORKS[name]
        for size in sizes:
            rows += _measured(name, build, size, chosen.ways, chosen.repeat)
    table = Table("work", "parameters", "batch", "way", "ms a step", "ratio to plain", "chosen")
    for row in rows:
        found = [row[key] for key in ("work", "parameters", "batch", "way")]
        times = [f"{row['milliseconds']:.2f}", f"{row['ratio']:.2f}"]
        table.add_row(*map(str, found), *times, row["chosen"])
    Console(width=110).print(table)
    chosen.out.write_text(json.dumps({"repeat": chosen.repeat, "rows": rows}, indent=1) + "\n")


def _options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS))
    options.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    options.add_argument("--repeat", type=int, default=5, help="turns; by default 5")
    options.add_argument("--out", type=Path, default=ROOT / "dpsgd.json")
    return options


def _measured(
    name: str, build: Callable[[], nn.Module], size: int, ways: Sequence[str], repeat: int
) -> list[dict[str, Any]]:
    task = Pictures(build)
    arrays = task.initial_arrays(Seeds(0).at("initial"))
    site = SiteContext(task, 0, {}, Seeds(0))
    kernels = {way: GradientKernel() for way in ways}
    steps = {way: 40 if way in ("plain", "ghost", "auto") else 6 for way in ways}

    def one(way: str, count: int) -> float:
        privacy = None if way == "plain" else PrivacySpec(unit="record", per_sample=way)
        phase = Phase("fit", steps=count, batch_size=size, params={"lr": 0.01}, privacy=privacy)
        order = Order("run", 1, phase, arrays, tuple(arrays))
        begin = time.perf_counter()
        kernels[way](order, site)
        return 1000 * (time.perf_counter() - begin)

    for way in ways:
        one(way, 2)
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeat):
        for way in ways:
            # Less a run of one step: what is left is steps alone.
            times[way].append((one(way, 1 + steps[way]) - one(way, 1)) / steps[way])
    plain = times.get("plain", [])
    return [
        {
            "work": name,
            "parameters": sum(values.size for values in arrays.values()),
            "batch": size,
            "way": way,
            "milliseconds": statistics.median(found),
            "ratio": statistics.median(a / b for a, b in zip(found, plain, strict=False))
            if plain
            else float("nan"),
            "chosen": kernels[way].export_facts().get("|ways", {}).get("fit", {}).get("way", ""),
            "runs": found,
        }
        for way, found in times.items()
    ]


if __name__ == "__main__":
    main()

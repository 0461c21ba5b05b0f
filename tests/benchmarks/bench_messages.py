"""What everything around the kernels costs: messages, admission, aggregation, the loop.

    python tests/benchmarks/bench_messages.py --rounds 20 --repeat 5
    python tests/benchmarks/bench_messages.py --only "mlp Blockwise" --profile

The clients train nothing: each hands back arrays that were made before the clock started,
100 of 1000 clients a round, through the real loop on the in-process engine. ``stacked``
replies are rows of one array, as a kernel that ran a cohort as one batch hands them out;
``separate`` ones lie each in memory of its own. The first round, in which things are built
that are used from then on, is left out. This is no test: it asserts nothing about time.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedalt.alternation.block import Block
from fedalt.alternation.site import Site
from fedalt.config import Settings
from fedalt.runs import simulate as engine
from fedalt.runs.folder import RunFolder
from fedalt.seeds import Seeds
from fedalt.wire.messages import reply_with
from fedalt.wire.records import OURS, make_reply, read_instruction
from fedalt.wire.report import ClientReport, encode_site

CLIENTS, COHORT = 1000, 100
SHAPES = {
    "logistic": {"weight": (10, 784), "bias": (10,)},
    "mlp": {"0.weight": (200, 784), "0.bias": (200,), "2.weight": (10, 200), "2.bias": (10,)},
}
STRATEGIES: dict[str, dict[str, Any]] = {
    "Blockwise": {"_target_": "fedalt.server.strategies.blockwise.Blockwise"},
    "FedAvg": {"_target_": "flwr.serverapp.strategy.FedAvg", "fraction_evaluate": 0.0},
}


class CannedTask:
    """A model's shapes and as many sites; nothing to train."""

    def __init__(self, model: str) -> None:
        self.shapes = SHAPES[model]
        self.blocks: tuple[Block, ...] = ()
        self.sites = [Site(i, f"client-{i}", 50 + i % 51) for i in range(CLIENTS)]

    def initial_arrays(self, seeds: Seeds) -> dict[str, np.ndarray]:
        """Return zeros."""
        return {name: np.zeros(shape, np.float32) for name, shape in self.shapes.items()}

    def evaluate(self, arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Judge nothing."""
        return {}


def canned(model: str, stacked: bool) -> list[dict[str, np.ndarray]]:
    """Make the cohort's arrays, place by place."""
    rng = Seeds(0).at("canned").numpy()
    stacks = {
        name: rng.standard_normal((COHORT, *shape), np.float32)
        for name, shape in SHAPES[model].items()
    }
    rows = [{name: stack[k] for name, stack in stacks.items()} for k in range(COHORT)]
    return rows if stacked else [{n: v.copy() for n, v in row.items()} for row in rows]


class CannedApp(ClientApp):
    """Answers a cohort at once, with arrays at hand."""

    def __init__(self, task: CannedTask, arrays: Sequence[Mapping[str, np.ndarray]]) -> None:
        super().__init__()
        self._task, self._arrays = task, arrays

    def cohort(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        """Decode the broadcast once, and reply with the arrays at hand."""
        if messages[0].metadata.message_type != "train":
            return [self._describe(m, c) for m, c in zip(messages, contexts, strict=True)]
        plan = read_instruction(messages[0].content).plan
        replies = []
        for message, context, arrays in zip(messages, contexts, self._arrays, strict=True):
            site = int(context.node_config["partition-id"])
            rows = self._task.sites[site].size
            report = ClientReport(plan.run_id, plan.round, plan.phase.name, site, rows, 6, 0.0)
            content = make_reply(report, arrays, {"loss": 0.5, "accuracy": 0.25})
            replies.append(reply_with(content, message))
        return replies

    def _describe(self, message: Message, context: Context) -> Message:
        site = self._task.sites[int(context.node_config["partition-id"])]
        records = {"arrays": ArrayRecord(), "metrics": MetricRecord()}
        ours = ConfigRecord({"site": encode_site(site)})
        return Message(RecordDict({**records, OURS: ours}), reply_to=message)


def run(
    model: str, strategy: str, stacked: bool, rounds: int, profile: cProfile.Profile | None = None
) -> float:
    """Return CPU milliseconds a client-round."""
    task = CannedTask(model)
    app = CannedApp(task, canned(model, stacked))
    config = {
        **{k: v for k, v in vars(Settings()).items() if not hasattr(v, "__dataclass_fields__")},
        "name": "bench",
        "rounds": rounds,
        "phases": {"train": {"clients": {"mode": "fixed", "count": COHORT}}},
        "schedule": {"repeat": {"of": "train"}},
        "strategy": STRATEGIES[strategy],
        "evaluate": {"clients_every": 0, "server_every": 0},
        "engine": {**vars(Settings().engine), "name": "local", "device": "cpu", "timeout": None},
        "checkpoint": {**vars(Settings().checkpoint), "every": rounds, "keep": 1},
    }
    times: list[float] = []

    def hear(event: Any) -> None:
        if event["event"] != "round":
            return
        times.append(time.process_time())
        if profile is not None:
            (profile.enable if len(times) < rounds else profile.disable)()

    load = engine._load
    engine._load = lambda name: (lambda _: app) if name == engine.CLIENT else load(name)
    try:
        with tempfile.TemporaryDirectory() as place:
            folder = RunFolder(Path(place) / "run")
            folder.create(config)
            engine.simulate(config, folder, lambda spec: task, [hear])  # type: ignore[arg-type]
    finally:
        engine._load = load
    return 1000 * (times[-1] - times[0]) / ((rounds - 1) * COHORT)


def main() -> None:
    """Run the benchmark and print its table."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--rounds", type=int, default=20)
    options.add_argument("--repeat", type=int, default=3, help="medians are shown")
    options.add_argument("--profile", action="store_true", help="where the time goes")
    options.add_argument("--only", default="", help="a part of a row's name")
    options.add_argument("--out", type=Path, default=Path("bench_messages.json"))
    chosen = options.parse_args()
    results: dict[str, float] = {}
    for model, strategy, kind in product(SHAPES, STRATEGIES, ("stacked", "separate")):
        name, stacked = f"{model} {strategy} {kind}", kind == "stacked"
        if chosen.only not in name:
            continue
        found = [run(model, strategy, stacked, chosen.rounds) for _ in range(chosen.repeat)]
        results[name] = statistics.median(found)
        print(f"{name:<30}{results[name]:>8.4f} ms CPU a client-round", flush=True)
        if chosen.profile:
            profile = cProfile.Profile()
            run(model, strategy, stacked, chosen.rounds, profile)
            pstats.Stats(profile).sort_stats("tottime").print_stats(30)
    chosen.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()

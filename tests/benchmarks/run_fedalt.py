"""fedalt itself, through the one entry that every simulation takes.

python run_fedalt.py logistic
python run_fedalt.py mlp --strategy fedavg --engine mode=sequential --engine workers=2
python run_fedalt.py scale-100000
"""

from measure import Meter

METER = Meter()

from collections.abc import Mapping  # noqa: E402
from dataclasses import asdict, replace  # noqa: E402
from typing import Any  # noqa: E402

import yaml  # noqa: E402
from options import read_options  # noqa: E402
from work import BATCH, LR, PHASE, SEED, WORKS, Work, load  # noqa: E402

STRATEGIES: Mapping[str, Mapping[str, Any]] = {
    "blockwise": {"_target_": "fedalt.server.strategies.blockwise.Blockwise"},
    "fedavg": {"_target_": "flwr.serverapp.strategy.FedAvg", "fraction_evaluate": 0.0},
}
SCALES = {f"scale-{count}": count for count in (1_000, 10_000, 100_000)}
"""Logistic regression with so many virtual clients, 100 a round."""


def main() -> None:
    """Run and print one line of JSON."""
    options = read_options(str(__doc__), [*WORKS, *SCALES])
    options.add_argument("--strategy", choices=list(STRATEGIES), default="blockwise")
    options.add_argument("--engine", action="append", default=[], metavar="KEY=VALUE")
    options.add_argument("--name", default="fedalt", help="the engine's name in the result")
    chosen = options.parse_args()
    # Importing torch and fedalt is fedalt's own start-up, reading the images is not.
    import torch
    from fedalt_run import run
    from fedalt_task import BenchTask, LazyTask

    torch.set_num_threads(1)
    with METER.reading_data():
        work = read_work(chosen.work, chosen.rounds)
        task = LazyTask(work) if chosen.work in SCALES else BenchTask(work)
    config = configure(work, STRATEGIES[chosen.strategy], parse_settings(chosen.engine))
    facts = run(config, task, METER)
    right = None if chosen.work in SCALES else judge(work, task, config)
    facts |= {"source": task.source, "order": "shuffled", "strategy": chosen.strategy}
    METER.tell(chosen.name, chosen.work, work.cohort, right, **facts)


def read_work(name: str, rounds: int | None) -> Work:
    """Return a work with its data, or one of a scale row without."""
    if name not in SCALES:
        return load(name, rounds)
    base = WORKS["logistic"]
    return replace(base, clients=SCALES[name], rounds=rounds or base.rounds)


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """Read ``key=value`` pairs for ``engine``, values as YAML has them."""
    return {pair.partition("=")[0]: yaml.safe_load(pair.partition("=")[2]) for pair in pairs}


def configure(work: Work, strategy: Mapping[str, Any], engine: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a run that is judged and committed once, at its end."""
    from fedalt.config import Settings

    defaults = asdict(Settings())
    unknown = set(engine) - set(defaults["engine"])
    if unknown:
        raise SystemExit(f"engine has no {sorted(unknown)}, but {sorted(defaults['engine'])}")
    return {
        **defaults,
        "name": "bench",
        "seed": SEED,
        "rounds": work.rounds,
        "phases": {
            PHASE: {
                "batch_size": BATCH,
                "clients": {"mode": "fixed", "count": work.cohort},
                "params": {"lr": LR},
            }
        },
        "schedule": {"repeat": {"of": PHASE}},
        "strategy": dict(strategy),
        "evaluate": {"clients_every": 0, "server_every": work.rounds},
        "engine": {**defaults["engine"], **engine},
        "checkpoint": {**defaults["checkpoint"], "every": work.rounds, "keep": 1},
    }


def judge(work: Work, task: Any, config: Mapping[str, Any]) -> float:
    """Return the final accuracy; refuses a run whose cohorts were not the work's."""
    from judge import accuracy
    from nets import pixel_accuracy

    from fedalt.alternation import History, Planner, parse_schedule
    from fedalt.seeds import Seeds

    schedule = parse_schedule(config["phases"], config["schedule"])
    first = Planner(schedule, Seeds(SEED).at("schedule"), task.sites).plan(1, History())
    drawn = [site.index for site in first.parts[0].cohort] if first else []
    if drawn != work.cohort_of(1):
        raise SystemExit("fedalt draws other cohorts than work.py: bring Work.cohort_of up to date")
    return (pixel_accuracy if work.name == "unet" else accuracy)(work, task.final)


if __name__ == "__main__":
    main()

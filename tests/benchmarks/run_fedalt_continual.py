"""fedalt on the continual stream: one client in an environment of power-law recurrence."""

from measure import Meter

METER = Meter()

from collections.abc import Mapping  # noqa: E402
from typing import Any  # noqa: E402

from continual_work import BATCH, EPOCHS, LR, REHEARSAL, Continual, load  # noqa: E402
from options import read_options  # noqa: E402
from run_fedalt import STRATEGIES, configure, parse_settings  # noqa: E402
from work import PHASE  # noqa: E402


def main() -> None:
    """Run and print one line of JSON."""
    options = read_options(str(__doc__), ["continual"])
    options.add_argument("--engine", action="append", default=[], metavar="KEY=VALUE")
    options.add_argument("--name", default="fedalt", help="the engine's name in the result")
    chosen = options.parse_args()
    import torch
    from fedalt_run import run
    from fedalt_task import ContinualTask

    torch.set_num_threads(1)
    with METER.reading_data():
        work = load(chosen.rounds)
        task = ContinualTask(work)
    facts = run(configure_stream(work, parse_settings(chosen.engine)), task, METER)
    facts |= {"source": work.source, "order": "shuffled"}
    METER.tell(chosen.name, work.name, work.cohort, work.accuracy(task.final), **facts)


def configure_stream(work: Continual, engine: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a run with a new task in every round."""
    learning = {
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "params": {"optimizer": "adam", "lr": LR, "optimizer_state": "reset"},
    }
    stream = {
        "of": PHASE,
        "tasks": work.rounds,
        "rounds": 1,
        "environment": "inverse_lag",
        "rehearsal": REHEARSAL,
        "budget": "steps",
    }
    return {
        **configure(work, STRATEGIES["blockwise"], engine),
        "phases": {PHASE: learning},
        "schedule": {"stream": stream},
    }


if __name__ == "__main__":
    main()

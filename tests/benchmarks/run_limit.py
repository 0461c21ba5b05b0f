"""The hand-written limit: what this machine can do when everything is derived by hand.

Bench-only: no federation library, one file a model, but the same averaging.
"""

from measure import Meter

METER = Meter()

import importlib  # noqa: E402

from judge import accuracy  # noqa: E402
from options import read_options  # noqa: E402
from work import load  # noqa: E402


def main() -> None:
    """Run and print one line of JSON."""
    chosen = read_options(str(__doc__), ["logistic", "mlp", "cnn"]).parse_args()
    with METER.reading_data():
        work = load(chosen.work, chosen.rounds)
        orders = work.orders()
    if chosen.work != "logistic":
        # The logistic limit is numpy's, and importing torch would be most of its run.
        import torch

        torch.set_num_threads(1)
    one_round = importlib.import_module(f"limit_{chosen.work}").one_round
    arrays = work.initial()
    for number in range(1, work.rounds + 1):
        cohort = work.cohort_of(number)
        arrays = one_round(work, [orders[number, client] for client in cohort], arrays)
        METER.round()
    METER.finish()
    right = accuracy(work, arrays)
    METER.tell("limit", work.name, work.cohort, right, source=work.source, order="shuffled")


if __name__ == "__main__":
    main()

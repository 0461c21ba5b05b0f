"""Avalanche's Naive strategy on the continual stream, rehearsed rows among each experience's.

It shuffles by itself, and its data sets are made before the clock starts, since it is given a
whole benchmark at once.
"""

from measure import Meter

METER = Meter()

import avalanche_naive as peer  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from avalanche.training.determinism.rng_manager import RNGManager  # noqa: E402
from continual_work import BATCH, LR, Continual, load  # noqa: E402
from nets import arrays_of, perceptron  # noqa: E402
from options import read_options  # noqa: E402
from work import SEED  # noqa: E402


def rounds_of(work: Continual) -> list[peer.Rows]:
    """Return each round's inputs and classes."""
    found = []
    for number in range(1, work.rounds + 1):
        rows = work.rows(number)
        x = np.concatenate([work.x[own][:, work.pixels[task]] for task, own in rows.items()])
        found.append((x, np.concatenate([work.y[own] for own in rows.values()])))
    return found


def main() -> None:
    """Run and print one line of JSON."""
    chosen = read_options(str(__doc__), ["continual"]).parse_args()
    torch.set_num_threads(1)
    RNGManager.set_random_seeds(SEED)
    with METER.reading_data():
        work = load(chosen.rounds)
        made = peer.benchmark(rounds_of(work), [(work.test_x, work.test_y)])
    model, limit = perceptron(work.initial()), peer.Limit(work.steps)
    learner = peer.strategy("naive", model, limit, LR, BATCH)
    for experience in made.train_stream:
        learner.train(experience, reset_optimizer_state=True)
        METER.round()
    METER.finish()
    if limit.steps != [work.steps] * work.rounds:
        raise SystemExit(f"avalanche took {limit.steps} steps, not {work.steps} in each round")
    right = work.accuracy(arrays_of(learner.model))
    METER.tell("avalanche", work.name, work.cohort, right, source=work.source, order="its own")


if __name__ == "__main__":
    main()

"""A bare torch loop: for each client a fresh model and optimiser, no federation around it."""

from measure import Meter

METER = Meter()

import copy  # noqa: E402
from collections.abc import Mapping  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from judge import accuracy  # noqa: E402
from nets import arrays_of, loss_of, pixel_accuracy, with_weights  # noqa: E402
from options import read_options  # noqa: E402
from torch import nn  # noqa: E402
from work import BATCH, LR, WORKS, Work, load  # noqa: E402


def train(work: Work, orders: Mapping[tuple[int, int], np.ndarray]) -> nn.Module:
    """Return the server's model after all rounds."""
    x, y = torch.from_numpy(work.x), torch.from_numpy(work.y)
    server = with_weights(work, work.initial())
    for number in range(1, work.rounds + 1):
        cohort = work.cohort_of(number)
        share = 1 / sum(work.size(client) for client in cohort)
        total = [torch.zeros_like(value) for value in server.parameters()]
        for client in cohort:
            model = copy.deepcopy(server)
            optimiser = torch.optim.SGD(model.parameters(), lr=LR)
            for rows in torch.from_numpy(orders[number, client]).split(BATCH):
                optimiser.zero_grad()
                loss_of(work.name, model(x[rows]), y[rows]).backward()
                optimiser.step()
            with torch.no_grad():
                for value, trained in zip(total, model.parameters(), strict=True):
                    value.add_(trained, alpha=share * work.size(client))
        with torch.no_grad():
            for value, mean in zip(server.parameters(), total, strict=True):
                value.copy_(mean)
        METER.round()
    return server


def main() -> None:
    """Run and print one line of JSON."""
    options = read_options(str(__doc__), list(WORKS))
    options.add_argument("--stored", action="store_true", help="batches in stored order")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    with METER.reading_data():
        work = load(chosen.work, chosen.rounds)
        orders = work.orders()
        if chosen.stored:
            orders = {key: np.sort(rows) for key, rows in orders.items()}
    arrays = arrays_of(train(work, orders))
    METER.finish()
    judge = pixel_accuracy if work.name == "unet" else accuracy
    right = judge(work, arrays)
    order = "stored" if chosen.stored else "shuffled"
    METER.tell("bare", work.name, work.cohort, right, source=work.source, order=order)


if __name__ == "__main__":
    main()

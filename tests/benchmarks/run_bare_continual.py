"""A bare torch loop on the continual stream: each round a fresh model and optimiser."""

from measure import Meter

METER = Meter()

import copy  # noqa: E402

import torch  # noqa: E402
from continual_work import LR, Continual, load  # noqa: E402
from nets import arrays_of, perceptron  # noqa: E402
from options import read_options  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402


def train(work: Continual, batches: list[list[torch.Tensor]]) -> nn.Module:
    """Return the model after all rounds."""
    x, y = torch.from_numpy(work.x), torch.from_numpy(work.y)
    server = perceptron(work.initial())
    for number in range(1, work.rounds + 1):
        rows = {task: torch.from_numpy(chosen) for task, chosen in work.rows(number).items()}
        pixels = {task: torch.from_numpy(work.pixels[task]) for task in rows}
        inputs = torch.cat([x[chosen][:, pixels[task]] for task, chosen in rows.items()])
        classes = torch.cat([y[chosen] for chosen in rows.values()])
        model = copy.deepcopy(server)
        optimiser = torch.optim.Adam(model.parameters(), lr=LR)
        for places in batches[number - 1]:
            optimiser.zero_grad()
            functional.cross_entropy(model(inputs[places]), classes[places]).backward()
            optimiser.step()
        server = model
        METER.round()
    return server


def batches_of(work: Continual) -> list[list[torch.Tensor]]:
    """Return all rounds' batches; drawing them is not the loop's work."""
    return [[torch.from_numpy(b) for b in work.batches(n + 1)] for n in range(work.rounds)]


def main() -> None:
    """Run and print one line of JSON."""
    chosen = read_options(str(__doc__), ["continual"]).parse_args()
    torch.set_num_threads(1)
    with METER.reading_data():
        work = load(chosen.rounds)
        batches = batches_of(work)
    arrays = arrays_of(train(work, batches))
    METER.finish()
    right = work.accuracy(arrays)
    METER.tell("bare", work.name, work.cohort, right, source=work.source, order="shuffled")


if __name__ == "__main__":
    main()

"""pfl: SimulatedBackend and FederatedAveraging, as its benchmarks for CPU use them.

User datasets are tensors in memory, made once, so that pfl's cache of batches serves in every
round. pfl walks a user's samples in stored order. It evaluates users before and after
training in round 1 whatever is asked, which counts as start-up here.
"""

from measure import Meter

METER = Meter()

import asyncio  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from judge import accuracy  # noqa: E402
from nets import arrays_of, loss_of, with_weights  # noqa: E402
from options import read_options  # noqa: E402
from pfl.aggregate.simulate import SimulatedBackend  # noqa: E402
from pfl.aggregate.weighting import WeightByDatapoints  # noqa: E402
from pfl.algorithm.base import NNAlgorithmParams  # noqa: E402
from pfl.algorithm.federated_averaging import FederatedAveraging  # noqa: E402
from pfl.callback.base import TrainingProcessCallback  # noqa: E402
from pfl.data.federated_dataset import FederatedDataset  # noqa: E402
from pfl.data.pytorch import PyTorchTensorDataset  # noqa: E402
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams  # noqa: E402
from pfl.metrics import Metrics, Weighted  # noqa: E402
from pfl.model.pytorch import PyTorchModel  # noqa: E402
from torch import nn  # noqa: E402
from work import BATCH, LR, Work, load  # noqa: E402


class Net(nn.Module):
    """A work's network with the two methods that pfl calls."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.name = work.name
        self.inner = with_weights(work, work.initial())

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return a batch's mean loss."""
        return loss_of(self.name, self.inner(x), y)

    @torch.no_grad()
    def metrics(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, Weighted]:
        """Return a batch's loss; every model must have metrics."""
        return {"loss": Weighted(float(self.loss(x, y)) * len(y), len(y))}


class Rounds(TrainingProcessCallback):
    """Tells the meter of a round's end."""

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: Any, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        """Go on."""
        METER.round()
        return False, Metrics()


def train(work: Work) -> Net:
    """Return the model after all rounds."""
    x, y = torch.from_numpy(work.x), torch.from_numpy(work.y)
    users = [
        PyTorchTensorDataset((x[work.rows(i)], y[work.rows(i)]), user_id=str(i))
        for i in range(work.clients)
    ]
    chosen = _cohorts(work)
    data = FederatedDataset(users.__getitem__, lambda: next(chosen))
    net = Net(work)
    model = PyTorchModel(
        model=net,
        local_optimizer_create=torch.optim.SGD,
        central_optimizer=torch.optim.SGD(net.parameters(), lr=1.0),
    )
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=work.rounds,
            evaluation_frequency=work.rounds + 1,
            train_cohort_size=work.cohort,
            val_cohort_size=None,
        ),
        backend=SimulatedBackend(
            training_data=data, val_data=data, postprocessors=[WeightByDatapoints()]
        ),
        model=model,
        model_train_params=NNTrainHyperParams(
            local_learning_rate=LR, local_num_epochs=1, local_batch_size=BATCH
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=None),
        callbacks=[Rounds()],
        send_metrics_to_platform=False,
    )
    return net


def _cohorts(work: Work) -> Iterator[int]:
    for number in range(1, work.rounds + 1):
        yield from work.cohort_of(number)


def main() -> None:
    """Run and print one line of JSON."""
    chosen = read_options(str(__doc__), ["logistic", "mlp", "cnn"]).parse_args()
    torch.set_num_threads(1)
    np.random.seed(0)  # noqa: NPY002  pfl draws its users' seeds from numpy's own state
    asyncio.set_event_loop(asyncio.new_event_loop())
    with METER.reading_data():
        work = load(chosen.work, chosen.rounds)
    arrays = arrays_of(train(work).inner)
    METER.finish()
    right = accuracy(work, arrays)
    METER.tell("pfl", work.name, work.cohort, right, source=work.source, order="stored")


if __name__ == "__main__":
    main()

"""Flower's simulation on Ray: one actor a core, one CPU a client, stock FedAvg.

Each actor reads the data itself, which is part of its start-up. Flower draws its nodes itself and
a node's number says nothing, so the k-th node of a round is told to train the k-th client of
the work's cohort.
"""

from measure import Meter

METER = Meter()

import logging  # noqa: E402
from collections.abc import Iterable  # noqa: E402

import torch  # noqa: E402
from flower_client import app as client_app  # noqa: E402
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord  # noqa: E402
from flwr.serverapp import Grid, ServerApp  # noqa: E402
from flwr.serverapp.strategy import FedAvg  # noqa: E402
from flwr.simulation import run_simulation  # noqa: E402
from judge import accuracy  # noqa: E402
from nets import arrays_of, network, with_weights  # noqa: E402
from options import read_options  # noqa: E402
from work import Arrays, Work, load  # noqa: E402


class Cohorts(FedAvg):
    """FedAvg that tells each sampled node whom of the work's cohort it stands for."""

    def __init__(self, work: Work) -> None:
        share = work.cohort / work.clients
        super().__init__(
            fraction_train=share,
            fraction_evaluate=0.0,
            min_train_nodes=work.cohort,
            min_available_nodes=work.clients,
        )
        self.work = work

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Sample nodes as FedAvg does; all get one content, so that it is stored once."""
        messages = list(super().configure_train(server_round, arrays, config, grid))
        shared = messages[0].content["config"]
        shared["work"], shared["rounds"] = self.work.name, self.work.rounds
        shared["nodes"] = [message.metadata.dst_node_id for message in messages]
        shared["clients"] = self.work.cohort_of(server_round)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average, and tell the meter."""
        answers = list(replies)
        failed = [answer.error.reason for answer in answers if answer.has_error()]
        if failed or len(answers) != self.work.cohort:
            raise RuntimeError(f"{len(answers)} of {self.work.cohort} replies; {failed[:1]}")
        result = super().aggregate_train(server_round, answers)
        METER.round()
        return result


def train(work: Work) -> Arrays:
    """Return the weights after all rounds."""
    final: Arrays = {}
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        initial = ArrayRecord(with_weights(work, work.initial()).state_dict())
        result = Cohorts(work).start(grid=grid, initial_arrays=initial, num_rounds=work.rounds)
        model = network(work.name)
        model.load_state_dict(result.arrays.to_torch_state_dict())
        final.update(arrays_of(model))

    run_simulation(
        server_app=server_app,
        client_app=client_app,
        num_supernodes=work.clients,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
    return final


def main() -> None:
    """Run and print one line of JSON."""
    chosen = read_options(str(__doc__), ["logistic", "mlp", "cnn"]).parse_args()
    torch.set_num_threads(1)
    logging.getLogger("flwr").setLevel(logging.WARNING)
    with METER.reading_data():
        work = load(chosen.work, chosen.rounds)
    arrays = train(work)
    METER.finish()
    right = accuracy(work, arrays)
    METER.tell("flower-ray", work.name, work.cohort, right, source=work.source, order="shuffled")


if __name__ == "__main__":
    main()

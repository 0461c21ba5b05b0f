"""fedjax: its own federated averaging on its default backend (jit), one thread.

Models and loss are built as in its emnist models, with haiku; images are NHWC as there. The
clients' last batches have any size from 1 to 10, and XLA compiles each once, in round 1 or
soon after.
"""

from measure import Meter

METER = Meter()

import os  # noqa: E402

# One thread; and XLA's older CPU runtime, which on small steps takes a quarter less than its new.
os.environ["XLA_FLAGS"] = " ".join(
    (
        "--xla_cpu_multi_thread_eigen=false",
        "intra_op_parallelism_threads=1",
        "--xla_cpu_use_thunk_runtime=false",
    )
)
os.environ["JAX_PLATFORMS"] = "cpu"

import fedjax  # noqa: E402
import haiku as hk  # noqa: E402
import jax  # noqa: E402
import numpy as np  # noqa: E402
from judge import accuracy  # noqa: E402
from options import read_options  # noqa: E402
from work import BATCH, LR, Arrays, Work, load  # noqa: E402

Params = dict[str, dict[str, jax.Array]]


def make_model(name: str) -> fedjax.Model:
    """Build a work's model in haiku."""

    def forward(batch: dict[str, jax.Array]) -> jax.Array:
        x = batch["x"]
        if name == "cnn":
            x = hk.max_pool(jax.nn.relu(hk.Conv2D(16, 3, name="conv1")(x)), 2, 2, "VALID")
            x = hk.max_pool(jax.nn.relu(hk.Conv2D(32, 3, name="conv2")(x)), 2, 2, "VALID")
        x = hk.Flatten()(x)
        if name == "logistic":
            return hk.Linear(10, name="fc")(x)
        x = jax.nn.relu(hk.Linear(200 if name == "mlp" else 128, name="fc1")(x))
        return hk.Linear(10, name="fc2")(x)

    sample = {"x": np.zeros((1, 28, 28, 1), np.float32), "y": np.zeros(1, np.int32)}

    def loss(batch: dict[str, jax.Array], scores: jax.Array) -> jax.Array:
        return fedjax.metrics.unreduced_cross_entropy_loss(batch["y"], scores)

    return fedjax.create_model_from_haiku(
        hk.transform(forward), sample, loss, {"loss": fedjax.metrics.CrossEntropyLoss()}
    )


def to_haiku(arrays: Arrays) -> Params:
    """Return torch's arrays under haiku's names and in its layouts."""
    params: Params = {}
    for name, values in arrays.items():
        layer, kind = name.split(".")
        if kind == "bias":
            params.setdefault(layer, {})["b"] = values
        elif values.ndim == 4:
            params.setdefault(layer, {})["w"] = values.transpose(2, 3, 1, 0)
        else:
            if layer == "fc1" and values.shape[1] == 1568:
                # Channels come last before flattening there, first in torch.
                values = values.reshape(-1, 32, 49).transpose(0, 2, 1).reshape(-1, 1568)
            params.setdefault(layer, {})["w"] = values.T
    return jax.tree_util.tree_map(lambda values: jax.numpy.array(values), params)


def to_torch(params: Params) -> Arrays:
    """Return haiku's arrays under torch's names and in its layouts."""
    arrays = {}
    for layer, parts in params.items():
        arrays[f"{layer}.bias"] = np.asarray(parts["b"])
        weight = np.asarray(parts["w"])
        if weight.ndim == 4:
            weight = weight.transpose(3, 2, 0, 1)
        else:
            weight = weight.T
            if layer == "fc1" and weight.shape[1] == 1568:
                weight = weight.reshape(-1, 49, 32).transpose(0, 2, 1).reshape(-1, 1568)
        arrays[f"{layer}.weight"] = weight
    return arrays


def train(work: Work) -> Params:
    """Return the server's weights after all rounds."""
    x, y = work.x.reshape(-1, 28, 28, 1), work.y.astype(np.int32)
    users = [
        fedjax.ClientDataset({"x": x[work.rows(i)], "y": y[work.rows(i)]})
        for i in range(work.clients)
    ]
    algorithm = fedjax.algorithms.fed_avg.federated_averaging(
        fedjax.model_grad(make_model(work.name)),
        client_optimizer=fedjax.optimizers.sgd(LR),
        server_optimizer=fedjax.optimizers.sgd(1.0),
        # Stored order, as pfl has it: no time goes into shuffling.
        client_batch_hparams=fedjax.ShuffleRepeatBatchHParams(
            batch_size=BATCH, num_epochs=1, seed=0, skip_shuffle=True
        ),
    )
    state = algorithm.init(to_haiku(work.initial()))
    key = jax.random.PRNGKey(0)
    for number in range(1, work.rounds + 1):
        key, *keys = jax.random.split(key, work.cohort + 1)
        cohort = zip(work.cohort_of(number), keys, strict=True)
        state, _ = algorithm.apply(state, [(str(i), users[i], k) for i, k in cohort])
        # jax returns before it has computed; a round ends with its weights.
        jax.block_until_ready(state.params)
        METER.round()
    return state.params


def main() -> None:
    """Run and print one line of JSON."""
    chosen = read_options(str(__doc__), ["logistic", "mlp", "cnn"]).parse_args()
    with METER.reading_data():
        work = load(chosen.work, chosen.rounds)
    params = train(work)
    METER.finish()
    right = accuracy(work, to_torch(params))
    METER.tell("fedjax", work.name, work.cohort, right, source=work.source, order="stored")


if __name__ == "__main__":
    main()

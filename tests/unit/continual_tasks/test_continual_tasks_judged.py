"""How streams of images judge: as a plain loop does, and slice by slice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedalt.alternation.phase import Phase
from fedalt.clients.kernels.base import Order, SiteContext
from fedalt.clients.kernels.evaluate import EvaluateKernel
from fedalt.data import load_digits
from fedalt.errors import DataError
from fedalt.scenarios.continual_power_law.images import ImageStream
from fedalt.scenarios.continual_power_law.rows import hold_out
from fedalt.seeds import Seeds

pytestmark = pytest.mark.usefixtures("digits")
SMALL: dict[str, Any] = {"tasks": 5, "clients": 3, "side": 14, "hidden": [20]}


def pooled(images: np.ndarray) -> np.ndarray:
    """Pool 28 × 28 images to 14 × 14 and divide by 255, in double precision."""
    mean = images.reshape(-1, 14, 2, 14, 2).astype(np.float64).mean((2, 4))
    return np.floor(mean + 0.5).reshape(len(images), 196) / 255.0


def forward(arrays: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    """Score images by the perceptron, in double precision and without torch."""
    a = {name: values.astype(np.float64) for name, values in arrays.items()}
    hidden = np.maximum(images @ a["body.0.weight"].T + a["body.0.bias"], 0.0)
    return hidden @ a["head.weight"].T + a["head.bias"]


def log_softmax(scores: np.ndarray) -> np.ndarray:
    shifted = scores - scores.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


@pytest.mark.parametrize("batch", [7, 2000])
@pytest.mark.parametrize(
    ("protocol", "outputs"),
    [
        ("domain-incremental", lambda t: ([0, 1], [0, 1])),
        ("task-incremental", lambda t: ([2 * t, 2 * t + 1], [2 * t, 2 * t + 1])),
        ("class-incremental", lambda t: (list(range(10)), [2 * t, 2 * t + 1])),
    ],
)
def test_the_server_judges_as_a_plain_loop_does(
    protocol: str, outputs: Any, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedalt.scenarios.continual_power_law.judge._BATCH", batch)
    task = ImageStream(variant="split", protocol=protocol, **SMALL, test_rows=None)
    arrays, base = task.initial_arrays(Seeds(4)), load_digits()
    accuracies, losses = [], []
    for number in range(5):
        own = np.flatnonzero(base.test_y // 2 == number)
        free, wanted = outputs(number)
        scores = forward(arrays, pooled(base.test_x[own]))[:, free]
        right = [free.index(wanted[label % 2]) for label in base.test_y[own]]
        accuracies.append(float(np.mean(scores.argmax(1) == right)))
        losses.append(float(-np.mean(log_softmax(scores)[np.arange(len(own)), right])))
    found = task.evaluate(arrays)
    assert [found[f"accuracy/{number}"] for number in range(5)] == pytest.approx(accuracies)
    assert found["accuracy"] == pytest.approx(np.mean(accuracies))
    assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-4)


@pytest.mark.parametrize("variant", ["permuted", "split"])
def test_the_kernel_judges_a_site_task_by_task(variant: str) -> None:
    task = ImageStream(variant=variant, protocol="task-incremental", **SMALL, held_out=0.3)
    arrays = task.initial_arrays(Seeds(4))
    order = Order("run", 1, Phase("look", "evaluate"), arrays, ())
    work = EvaluateKernel()(order, SiteContext(task, 2, {}, Seeds(0)))
    own = task.site_scores(2, arrays)
    assert {k: v for k, v in work.metrics.items() if k.startswith("accuracy/")} == pytest.approx(
        own
    )
    counts = {name: len(rows) for name, rows in task.site_eval_slices(2).items()}
    mean = sum(own[f"accuracy/{name}"] * n for name, n in counts.items()) / sum(counts.values())
    assert work.metrics["accuracy"] == pytest.approx(mean)
    # Each slice holds its task's rows and no other's, which the batch's third tensor tells.
    numbers = task.site_eval_data(2)[2]
    assert all(
        (numbers[rows] == int(name)).all() for name, rows in task.site_eval_slices(2).items()
    )


def test_a_client_of_two_rows_has_one_to_be_judged_by() -> None:
    parts = [np.arange(first, first + n) for first, n in ((0, 1), (10, 2), (20, 4), (30, 100))]
    found = hold_out(parts, None, 0.1, Seeds(0))
    assert [len(held) for held in found.held] == [0, 1, 1, 10]
    assert [len(train) for train in found.train] == [1, 1, 3, 90]
    assert [len(held) for held in hold_out(parts, None, 0.0, Seeds(0)).held] == [0, 0, 0, 0]
    for part, train, held in zip(parts, found.train, found.held, strict=True):
        assert sorted([*train, *held]) == part.tolist()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25])
def test_where_rows_are_capped_the_share_is_of_those_that_are_kept(share: float) -> None:
    parts = [np.arange(first, first + n) for first, n in ((0, 10_000), (20_000, 40), (30_000, 3))]
    whole, capped = (hold_out(parts, rows, share, Seeds(0)) for rows in (None, 90))
    counts = {0.0: (0, 0, 0), 0.1: (10, 4, 1), 0.25: (30, 10, 1)}[share]
    assert [len(held) for held in capped.held] == list(counts)
    assert len(capped.train[0]) == 90
    for few, all_, train in zip(capped.held, whole.held, capped.train, strict=True):
        assert set(few) <= set(all_) and not set(few) & set(train)
    # Trained on is what a larger share would have left too: results of earlier runs stand.
    rng = Seeds(0).at("held", 0).numpy()
    rows = rng.permutation(parts[0])[round(share * 10_000) :][:90]
    assert capped.train[0].tolist() == sorted(rows.tolist())
    assert [t.tolist() for t in capped.train[1:]] == [t.tolist() for t in whole.train[1:]]


def test_a_site_without_held_out_rows_says_which_setting_is_to_blame() -> None:
    task = ImageStream(**SMALL, held_out=0.0)
    with pytest.raises(DataError, match=r"site 1 holds no rows out.*task\.held_out.*clients_ev"):
        task.site_eval_data(1)
    assert task.site_eval_slices(1) == {}
    assert task.site_scores(1, task.initial_arrays(Seeds(0))) == {}


def test_a_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"task\.root"):
        ImageStream(root=str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="MNIST"):
        ImageStream(root=str(tmp_path / "empty"))


def test_distillation_finds_all_outputs_and_those_of_past_tasks() -> None:
    classes = [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    for protocol in ("task-incremental", "class-incremental"):
        task = ImageStream(variant="split", protocol=protocol, **SMALL)
        assert [task.seen_classes([t]).tolist() for t in range(5)] == classes
        assert task.seen_classes([3, 0]).tolist() == [0, 1, 6, 7]
        assert task.seen_classes([3, 0]).dtype == np.int64
        model, batch = task.model(), task.task_data(0, 3, np.arange(6))
        free = task.all_scores(model, batch)
        assert torch.equal(free, model(batch[0]))
        assert float(free.detach().min()) > -1e3
        hidden = (task.scores(model, batch) < -1e3).any()
        assert bool(hidden) == (protocol == "task-incremental")
    domain = ImageStream(variant="split", **SMALL)
    assert domain.seen_classes([4]).tolist() == [0, 1]
    many = ImageStream(protocol="class-incremental", **SMALL)
    assert many.seen_classes([2]).tolist() == list(range(20, 30))

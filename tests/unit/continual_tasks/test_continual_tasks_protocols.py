"""Protocols: which outputs stand for which classes, and what a model may know."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fedalt.errors import ConfigError
from fedalt.scenarios.continual_power_law.images import ImageStream
from fedalt.scenarios.continual_power_law.protocols import PROTOCOLS, Protocol, split_classes
from fedalt.seeds import Seeds
from fedalt.task import StreamTask

pytestmark = pytest.mark.usefixtures("digits")

SPLIT = {
    "domain-incremental": [{0, 1}] * 5,
    "task-incremental": [{0, 1}, {2, 3}, {4, 5}, {6, 7}, {8, 9}],
    "class-incremental": [{0, 1}, {2, 3}, {4, 5}, {6, 7}, {8, 9}],
}


def stream(variant: str, protocol: str, **settings: object) -> ImageStream:
    made = ImageStream(
        variant=variant,
        protocol=protocol,
        **{"tasks": 5, "clients": 2, "side": 14, "hidden": [20], "test_rows": None, **settings},  # type: ignore[arg-type]
    )
    assert isinstance(made, StreamTask)
    return made


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_labels_of_split_tasks(protocol: str) -> None:
    task = stream("split", protocol)
    assert list(task.tasks) == ["0-1", "2-3", "4-5", "6-7", "8-9"]
    assert task.protocol == protocol
    for site in range(2):
        for number in range(5):
            batch = task.task_data(site, number, np.arange(task.task_rows(site, number)))
            assert set(batch[1].tolist()) == SPLIT[protocol][number]
            assert len(batch) == (3 if protocol == "task-incremental" else 2)
            assert all(bool((numbers == number).all()) for numbers in batch[2:])
    assert task.model()(batch[0]).shape[1] == (2 if protocol == "domain-incremental" else 10)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("variant", ["permuted", "rotated"])
def test_labels_of_tasks_that_share_their_classes(variant: str, protocol: str) -> None:
    task = stream(variant, protocol, tasks=3)
    first = 0 if protocol == "domain-incremental" else 20
    labels = task.task_data(0, 2, np.arange(task.task_rows(0, 2)))[1]
    assert set(labels.tolist()) == set(range(first, first + 10))
    outputs = 10 if protocol == "domain-incremental" else 30
    assert dict(task.model().named_parameters())["head.bias"].shape == (outputs,)


@pytest.mark.parametrize("variant", ["permuted", "split"])
def test_the_mask_leaves_one_head_and_no_gradient_to_others(variant: str) -> None:
    task = stream(variant, "task-incremental")
    width = 10 if variant == "permuted" else 2
    model = task.model()
    batch = task.task_data(0, 3, np.arange(40))
    scores = task.scores(model, batch)
    free = scores > -1e4
    own = torch.arange(5 * width) // width == 3
    assert torch.equal(free, own.expand(40, -1))
    assert torch.equal(scores[:, own], model(batch[0])[:, own])
    # Distillation multiplies probabilities of 0 by the log-probabilities: that is 0, not NaN.
    probabilities, logs = scores.softmax(1), scores.log_softmax(1)
    assert torch.isfinite(probabilities * logs).all()
    assert not probabilities[:, ~own].any()
    task.loss(model, batch)[0].backward()
    head = model.get_parameter("head.weight").grad
    assert head is not None
    assert head[own].any()
    assert not head[~own].any()


def test_a_batch_of_several_tasks_is_masked_row_by_row() -> None:
    task = stream("split", "task-incremental")
    parts = [task.task_data(0, number, np.arange(3)) for number in (4, 1)]
    batch = tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))
    free = task.scores(task.model(), batch) > -1e4
    places = [set(row.nonzero().flatten().tolist()) for row in free]
    assert places == [{8, 9}] * 3 + [{2, 3}] * 3


@pytest.mark.parametrize("variant", ["permuted", "split"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_model_that_knows_nothing_loses_the_log_of_what_it_may_choose(
    variant: str, protocol: str
) -> None:
    task = stream(variant, protocol)
    arrays = {name: np.zeros_like(v) for name, v in task.initial_arrays(Seeds(0)).items()}
    width = 10 if variant == "permuted" else 2
    choices = width * 5 if protocol == "class-incremental" else width
    found = task.evaluate(arrays)
    assert found["loss"] == pytest.approx(math.log(choices), abs=1e-5)
    assert set(found) == {"accuracy", "loss", *(f"accuracy/{number}" for number in range(5))}
    # Equal scores: argmax is the first output it may choose.
    if protocol == "class-incremental":
        assert all(found[f"accuracy/{number}"] == 0.0 for number in range(1, 5))
    else:
        assert all(found[f"accuracy/{number}"] > 0.05 for number in range(5))
    assert found["accuracy"] == pytest.approx(np.mean([found[f"accuracy/{t}"] for t in range(5)]))


def test_shuffled_classes_are_of_the_seed_and_cover_all() -> None:
    first, again = (split_classes(5, 10, True, Seeds(1)) for _ in range(2))
    assert first == again
    assert first != split_classes(5, 10, True, Seeds(2))
    assert sorted(label for group in first for label in group) == list(range(10))


def test_shuffled_classes_reach_the_rows() -> None:
    task = ImageStream(
        variant={"name": "split", "order": "shuffled"},
        protocol="class-incremental",
        tasks=5,
        side=14,
        seed=3,
    )
    names = [tuple(map(int, name.split("-"))) for name in task.tasks]
    assert sorted(sum(names, ())) == list(range(10))
    assert names != [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]


def test_what_makes_no_protocol() -> None:
    with pytest.raises(ConfigError, match="did you mean 'class-incremental'"):
        Protocol("class-incremantal", ((0, 1),), 2)
    with pytest.raises(ConfigError, match="a task of one class"):
        stream("split", "domain-incremental", tasks=10)
    assert len(stream("split", "class-incremental", tasks=10).tasks) == 10
    with pytest.raises(ConfigError, match="only into 1, 2, 5, 10 tasks"):
        stream("split", "class-incremental", tasks=4)

"""ImageStream: rows against arrays built plainly, no row in two places, one map for all."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedalt.data import load_digits, load_mnist
from fedalt.errors import ConfigError, DataError
from fedalt.scenarios.continual_power_law.images import ImageStream
from fedalt.seeds import Seeds

SMALL: dict[str, Any] = {"tasks": 4, "clients": 3, "side": 14, "hidden": [20]}


class Recorder(nn.Module):
    """A model without arrays that keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images)
        return torch.zeros(len(images), 10)


def plain(images: np.ndarray) -> np.ndarray:
    """Pool 28 × 28 images to 14 × 14, rounded to whole grey levels, in [0, 1]."""
    mean = images.reshape(-1, 14, 2, 14, 2).astype(np.float64).mean((2, 4))
    return (np.floor(mean + 0.5) / 255.0).reshape(len(images), 196).astype(np.float32)


def orders(seed: int, tasks: int) -> list[np.ndarray]:
    drawn = [Seeds(seed).at("permutation", t).numpy().permutation(196) for t in range(tasks)]
    return [np.arange(196), *drawn[1:]]


@pytest.mark.usefixtures("digits")
def test_rows_of_a_task_are_those_of_the_full_array() -> None:
    task, base = ImageStream(**SMALL, seed=5), load_digits()
    full = plain(base.train_x)
    for site, part in enumerate(task.parts.train):
        for number, order in enumerate(orders(5, 4)):
            assert task.task_rows(site, number) == len(part)
            rows = np.random.default_rng(number).permutation(len(part))[:50]
            images, labels = task.task_data(site, number, rows)
            np.testing.assert_allclose(images.numpy(), full[part[rows]][:, order], atol=1e-7)
            assert np.array_equal(labels.numpy(), base.train_y[part[rows]])
            assert images.dtype == torch.float32
            assert labels.dtype == torch.int64
            assert 0.0 <= float(images.min()) <= float(images.max()) <= 1.0


@pytest.mark.usefixtures("digits")
def test_test_rows_and_held_out_rows_go_through_the_same_maps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task, base, spy = ImageStream(**SMALL, test_rows=None, seed=5), load_digits(), Recorder()
    monkeypatch.setattr(task, "model", lambda: spy)
    task.evaluate({})
    full = plain(base.test_x)
    for shown, order in zip(spy.seen, orders(5, 4), strict=True):
        np.testing.assert_allclose(shown.numpy(), full[:, order], atol=1e-7)
    held = plain(base.train_x[task.parts.held[1]])
    spy.seen.clear()
    task.site_scores(1, {})
    for shown, order in zip(spy.seen, orders(5, 4), strict=True):
        np.testing.assert_allclose(shown.numpy(), held[:, order], atol=1e-7)


@pytest.mark.usefixtures("digits")
@pytest.mark.parametrize(
    "partition",
    [
        "iid",
        {"name": "dirichlet", "alpha": 0.2},
        {"name": "pathological", "shards_per_client": 2},
    ],
)
def test_no_row_is_in_two_places(partition: Any) -> None:
    task = ImageStream(**{**SMALL, "clients": 10}, partition=partition, held_out=0.2)
    parts = [*task.parts.train, *task.parts.held]
    together = np.concatenate(parts)
    assert len(np.unique(together)) == len(together) == 1437
    assert all(len(part) for part in task.parts.train)
    for train, held in zip(task.parts.train, task.parts.held, strict=True):
        assert len(held) == min(round(0.2 * (len(train) + len(held))), len(train) + len(held) - 1)


@pytest.mark.usefixtures("digits")
def test_split_rows_are_the_rows_of_its_classes_and_of_no_other_task() -> None:
    task = ImageStream(variant="split", **{**SMALL, "tasks": 5}, seed=2)
    base = load_digits()
    full = plain(base.train_x)
    for site, part in enumerate(task.parts.train):
        met = []
        for number in range(5):
            own = part[np.isin(base.train_y[part], [2 * number, 2 * number + 1])]
            images, labels = task.task_data(site, number, np.arange(len(own)))
            np.testing.assert_allclose(images.numpy(), full[own], atol=1e-7)
            assert np.array_equal(labels.numpy(), base.train_y[own] % 2)
            assert task.task_rows(site, number) == len(own)
            met.extend(own)
        assert sorted(met) == part.tolist()


@pytest.mark.usefixtures("digits")
@pytest.mark.parametrize("variant", ["permuted", "rotated", "split"])
def test_all_of_a_site_is_its_tasks_one_after_the_other(variant: str) -> None:
    task = ImageStream(variant=variant, **{**SMALL, "tasks": 5})
    whole = task.site_data(1)
    parts = [task.task_data(1, t, np.arange(task.task_rows(1, t))) for t in range(5)]
    for tensor, pieces in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(tensor, torch.cat(pieces))
    assert len(whole[0]) == task.sites[1].size


@pytest.mark.usefixtures("digits")
@pytest.mark.parametrize("protocol", ["domain-incremental", "task-incremental"])
def test_a_site_is_scored_on_its_held_out_rows_by_task(protocol: str) -> None:
    task = ImageStream(variant="split", protocol=protocol, **{**SMALL, "tasks": 5}, held_out=0.3)
    arrays = task.initial_arrays(Seeds(1))
    model = task.model()
    model.load_state_dict({name: torch.from_numpy(v) for name, v in arrays.items()})
    data, slices = task.site_eval_data(2), task.site_eval_slices(2)
    assert sorted(np.concatenate(list(slices.values()))) == list(range(len(data[0])))
    found = task.site_scores(2, arrays)
    assert set(found) == {f"accuracy/{name}" for name in slices}
    for name, rows in slices.items():
        _, metrics = task.loss(model, tuple(tensor[rows] for tensor in data))
        assert found[f"accuracy/{name}"] == pytest.approx(float(metrics["accuracy"]))


@pytest.mark.usefixtures("digits")
def test_sites_are_many_and_rows_are_capped() -> None:
    task = ImageStream(**{**SMALL, "clients": 100}, rows=10, partition={"name": "dirichlet"})
    assert len(task.sites) == 100
    assert max(map(len, task.parts.train)) == 10
    assert min(map(len, task.parts.train)) < 10
    assert [site.size for site in task.sites] == [4 * len(part) for part in task.parts.train]
    assert task.row_bytes == 197
    labels = load_digits().train_y
    for site in (0, 57, 99):
        counts = np.bincount(labels[task.parts.train[site]], minlength=10)
        assert counts[int(task.sites[site].attributes["class"])] == counts.max()


@pytest.mark.usefixtures("digits")
def test_one_seed_gives_one_stream() -> None:
    first, again, other = (ImageStream(**SMALL, seed=seed) for seed in (1, 1, 2))
    rows = np.arange(20)
    assert torch.equal(first.task_data(2, 3, rows)[0], again.task_data(2, 3, rows)[0])
    assert not torch.equal(first.task_data(2, 3, rows)[0], other.task_data(2, 3, rows)[0])


@pytest.mark.usefixtures("digits")
def test_rows_that_a_site_has_not() -> None:
    task = ImageStream(**SMALL)
    there = task.task_rows(0, 1)
    with pytest.raises(DataError, match=f"of task 1 .'permutation 1'., of which it has {there}"):
        task.task_data(0, 1, np.array([there]))
    with pytest.raises(DataError, match="of task 1"):
        task.task_data(0, 1, np.array([-1]))
    with pytest.raises(DataError, match="no task 4, only 0 to 3"):
        task.task_rows(0, 4)
    with pytest.raises(DataError, match="no task -1"):
        task.task_data(0, -1, np.array([0]))
    assert [len(tensor) for tensor in task.task_data(0, 1, np.array([], np.int64))] == [0, 0]


@pytest.mark.usefixtures("digits")
def test_more_than_fits_into_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    task = ImageStream(**SMALL)
    monkeypatch.setattr("fedalt.scenarios.continual_power_law.images.LARGEST", 100_000)
    with pytest.raises(DataError, match=r"site 0: its rows of all 4 tasks take 0\.0 GB"):
        task.site_data(0)


@pytest.mark.usefixtures("digits")
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"data": "mnits"}, "task.data: unknown data set 'mnits' .did you mean 'mnist'"),
        ({"variant": "permutted"}, "task.variant: unknown name .*did you mean 'permuted'"),
        ({"variant": {"nam": "split"}}, "task.variant is .* expected a name"),
        ({"variant": {"name": "rotated", "angle": [0]}}, "did you mean 'angles'"),
        ({"variant": {"name": "rotated", "angles": [0, 1]}}, "a list of 10 numbers"),
        ({"variant": {"name": "rotated", "max_angle": "much"}}, "max_angle is 'much'"),
        ({"variant": {"name": "rotated", "max_angle": 360}}, "which is the same"),
        ({"variant": {"name": "split", "order": "sorted"}}, "unknown order 'sorted'"),
        ({"variant": {"name": "permuted", "first_identity": 1}}, "expected true or false"),
        ({"variant": "split", "tasks": 3}, "split evenly only into 1, 2, 5, 10"),
        ({"variant": "split", "tasks": 5, "test_rows": 1}, "none of them belongs to task"),
        ({"protocol": "domain"}, "did you mean 'domain-incremental'"),
        ({"tasks": 0}, "task.tasks is 0"),
        ({"clients": 2.5}, "task.clients is 2.5"),
        ({"partition": "dirichlit"}, "did you mean 'dirichlet'"),
        ({"partition": {"name": "iid", "alpha": 1.0}}, "unknown option 'alpha' .it takes none"),
        ({"held_out": 1.0}, "task.held_out is 1.0"),
        ({"held_out": float("nan")}, "expected a finite number"),
        ({"side": 20}, "task.side is 20, expected one of 14, 28, 32"),
        ({"rows": 0}, "task.rows is 0"),
        ({"test_rows": -5}, "task.test_rows is -5"),
        ({"model": "mpl"}, "did you mean 'mlp'"),
        ({"norm": "bach"}, "did you mean 'batch'"),
        ({"hidden": [200, 0]}, r"task.hidden\[1\] is 0"),
        ({"hidden": 200}, "task.hidden is 200, expected a list"),
        ({"dropout": 1.0}, "task.dropout is 1.0"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ImageStream(**settings)


@pytest.mark.skipif(not os.environ.get("FEDALT_DATA"), reason="FEDALT_DATA names no folder")
def test_mnist_itself() -> None:
    base = load_mnist()
    if base.name != "MNIST":
        pytest.skip("FEDALT_DATA holds no MNIST")
    task = ImageStream(side=14, rows=2000, tasks=10, clients=4, seed=1)
    assert [task.task_rows(site, 9) for site in range(4)] == [2000] * 4
    assert [len(part) for part in task.parts.held] == [222] * 4
    images, labels = task.task_data(3, 9, np.arange(2000))
    order = Seeds(1).at("permutation", 9).numpy().permutation(196)
    rows = task.parts.train[3]
    np.testing.assert_allclose(images.numpy(), plain(base.train_x[rows])[:, order], atol=1e-7)
    assert np.array_equal(labels.numpy(), base.train_y[rows])

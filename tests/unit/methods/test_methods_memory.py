"""Replay and A-GEM: a uniform memory of rows seen, joined to batches or used to project."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from method_toys import Softmax, Walker, descend, kept, mlp, normed
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from fedalt.clients.kernels.evaluate import take
from fedalt.clients.kernels.methods.agem import projected
from fedalt.clients.kernels.methods.memory import Remembered, Reservoir
from fedalt.errors import ConfigError
from fedalt.seeds import Seeds


def test_every_row_offered_is_kept_with_equal_probability() -> None:
    """χ² over 60 rows of three tasks and 4,000 memories of ten: below the 99.9 % point of 59."""
    counts = np.zeros((3, 20))
    for trial in range(4000):
        memory, rng = Reservoir.empty(10), Seeds(trial).at("memory").numpy()
        for task in range(3):
            memory = memory.offer(task, np.arange(20), rng)
        assert len(np.unique(memory.held, axis=0)) == 10
        np.add.at(counts, tuple(memory.held.T), 1)
    expected = 4000 * 10 / 60
    # Of ten drawn without replacement the variance is smaller by (1 − 10/60)·60/59.
    chi = ((counts - expected) ** 2 / expected).sum() / ((1 - 10 / 60) * 60 / 59)
    assert 20 < chi < 98.3


def test_a_memory_that_is_not_full_keeps_everything() -> None:
    rng = np.random.default_rng(1)
    memory = Reservoir.empty(50).offer(3, np.array([4, 9]), rng).offer(1, np.array([0]), rng)
    assert memory.held.tolist() == [[3, 4], [3, 9], [1, 0]]
    assert memory.offered.tolist() == [[3, 2], [1, 1]]


def test_a_task_is_offered_once() -> None:
    rng = np.random.default_rng(1)
    memory = Reservoir.empty(4).offer(0, np.arange(9), rng)
    assert memory.offer(0, np.arange(9), rng) is memory


def test_a_memory_comes_back_from_its_entries_and_keeps_its_size() -> None:
    memory = Reservoir.empty(4).offer(0, np.arange(9), np.random.default_rng(1))
    state = dict(memory.entries("memory/fit/replay"))
    again = Reservoir.read(state, "memory/fit/replay", 4)
    assert np.array_equal(again.held, memory.held)
    assert np.array_equal(again.offered, memory.offered)
    with pytest.raises(ConfigError, match=r"a memory of 4 rows, and now 9 are asked for"):
        Reservoir.read(state, "memory/fit/replay", 9)


def test_a_draw_is_without_replacement_and_of_the_size_asked_for() -> None:
    data = (torch.arange(10), torch.arange(10) * 2)
    memory = Remembered(data, 4, np.random.default_rng(1))
    drawn = [memory.draw() for _ in range(200)]
    for first, second in drawn:
        assert len(set(first.tolist())) == 4 and torch.equal(second, first * 2)
    assert {int(x) for first, _ in drawn for x in first} == set(range(10))
    assert Remembered(data, 10, memory.rng).draw() is data


@pytest.mark.parametrize("method", ["replay", "agem"])
def test_no_row_is_touched_that_was_not_seen(method: str) -> None:
    """``new`` gives a client 5 of its 12 rows of each task: the pools, and all that is touched."""
    params = {f"{method}_memory": 6, f"{method}_batch": 3}
    walker = Walker(Softmax(), params, stream={"new": 5})
    for experience in (0, 0, 1, 1, 2):
        walker.go(experience)
        pools = kept(walker.state, "stream/pool/")
        seen = {(int(task), int(row)) for task, rows in pools.items() for row in rows}
        assert set(walker.task.asked) <= seen
        held = walker.state.get(f"memory/fit/{method}/held", np.zeros((0, 2), int))
        assert {tuple(map(int, pair)) for pair in held} <= seen
        assert experience not in held[:, 0]
    assert len(seen) == 15 and len(held) == 6
    assert walker.state[f"memory/fit/{method}/offered"].tolist() == [[0, 5], [1, 5]]


def test_replay_trains_on_batch_and_memory_together() -> None:
    """A round against a plain loop over joined batches."""
    walker = Walker(Softmax(mlp), {"replay_memory": 8, "replay_batch": 3})
    walker.go(0)
    task, model = walker.task, mlp()
    model.load_state_dict({n: torch.tensor(a) for n, a in walker.arrays.items()})
    work = walker.go(1)
    held = walker.state["memory/fit/replay/held"]
    assert len(held) == 8 and set(held[:, 0]) == {0}
    past, data = task.task_data(0, 0, held[:, 1]), task.task_data(0, 1, np.arange(12))
    seeds = Seeds(1).at("round", 2, "client", 0)
    rng, own = seeds.at("batches").numpy(), seeds.at("methods", "replay draw").numpy()
    losses = []
    for _ in range(2):
        for rows in rng.permutation(np.arange(12)).reshape(-1, 4):
            old = take(past, torch.from_numpy(own.choice(8, 3, replace=False)))
            pairs = zip(take(data, torch.from_numpy(rows)), old, strict=True)
            loss, _ = task.loss(model, tuple(torch.cat(pair) for pair in pairs))
            losses.append(loss.item())
            descend(model, loss)
    for name, value in model.state_dict().items():
        np.testing.assert_allclose(work.arrays[name], value, atol=1e-6)
    assert work.metrics["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert work.num_examples == 12


def test_a_replay_batch_is_as_large_as_the_phases_unless_told() -> None:
    sizes: list[int] = []

    class Counting(Softmax):
        def loss(self, model: nn.Module, batch: Any) -> Any:
            sizes.append(len(batch[0]))
            return super().loss(model, batch)

    walker = Walker(Counting(), {"replay_memory": 9})
    walker.go(0)
    walker.go(1)
    assert sizes == [4] * 6 + [8] * 6


VECTORS = st.lists(st.floats(-10, 10, width=32), min_size=6, max_size=6)


@given(VECTORS, VECTORS)
def test_a_projection_never_points_against_its_reference(a: list[float], b: list[float]) -> None:
    grads = list(torch.tensor(a, dtype=torch.float64).split([1, 2, 3]))
    reference = list(torch.tensor(b, dtype=torch.float64).split([1, 2, 3]))
    found = projected(grads, reference)
    flat, toward = torch.cat([g for g in found if g is not None]), torch.cat(reference)
    size = float(torch.cat(grads).norm() * toward.norm())
    assert float(flat @ toward) >= -1e-9 * (1 + size)
    if float(torch.cat(grads) @ toward) >= 0:
        assert found is grads
    elif size > 1e-3:
        # What is left is the gradient without its part along the reference: the nearest such.
        gone = torch.cat(grads) - flat
        assert float(gone @ toward) == pytest.approx(-float(gone.norm() * toward.norm()))
        assert float(flat @ toward) == pytest.approx(0.0, abs=1e-9 * (1 + size))


def test_a_gradient_that_is_not_there_counts_as_zeros() -> None:
    one, none = torch.tensor([1.0]), None
    assert projected([none, one], [one, none]) == [none, one]
    found = projected([-one, none, one], [one, one, none])
    assert [float(g) for g in found if g is not None] == [-0.5, 0.5, 1.0]
    assert projected([one], ()) == [one]


def test_agem_projects_a_round_as_written_out() -> None:
    walker = Walker(Softmax(mlp), {"agem_memory": 12, "agem_batch": 12, "lr": 1.0}, {"epochs": 10})
    walker.go(0)
    task, model = walker.task, mlp()
    model.load_state_dict({n: torch.tensor(a) for n, a in walker.arrays.items()})
    work = walker.go(1)
    past = task.task_data(0, 0, walker.state["memory/fit/agem/held"][:, 1])
    data = task.task_data(0, 1, np.arange(12))
    rng = Seeds(1).at("round", 2, "client", 0, "batches").numpy()
    params, against = list(model.parameters()), []
    for _ in range(10):
        for rows in rng.permutation(np.arange(12)).reshape(-1, 4):
            batch = take(data, torch.from_numpy(rows))
            losses = [task.loss(model, rows)[0] for rows in (batch, past)]
            g, r = (parameters_to_vector(torch.autograd.grad(x, params)) for x in losses)
            against.append(bool(g @ r < 0))
            if against[-1]:
                g = g - (g @ r) / (r @ r) * r
            vector_to_parameters(parameters_to_vector(params).detach() - 1.0 * g, params)
    assert set(against) == {True, False}
    for name, value in model.state_dict().items():
        np.testing.assert_allclose(work.arrays[name], value.detach(), atol=1e-4)


def test_reference_gradients_leave_running_statistics() -> None:
    """Only batches of the present task count, as many as there are."""
    walker = Walker(Softmax(normed, blocks=()), {"agem_memory": 4})
    walker.go(0)
    before = int(walker.arrays["1.num_batches_tracked"])
    walker.go(1)
    assert int(walker.arrays["1.num_batches_tracked"]) == before + 6

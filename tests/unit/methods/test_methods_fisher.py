"""The diagonal Fisher information against closed forms and against a plain loop over rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from method_toys import CLASSES, Softmax, Walker, linear, mlp, normed
from torch import nn

from fedalt.clients.kernels.methods.fisher import diagonal
from fedalt.clients.kernels.model import ReusedModel
from fedalt.errors import ConfigError, FedaltError
from fedalt.seeds import Seeds

SEEDS = Seeds(2).at("fisher")


def setting(task: Any, rows: int = 12) -> tuple[ReusedModel, dict[str, Any], Any]:
    """Return a model at its start, its trained parameters, and rows of task 1."""
    model, client = Walker(task, {}).client(0)
    trained = model.choose(client.stages[0].arrays)
    return model, dict(trained), task.task_data(0, 1, np.arange(rows))


def probabilities(model: ReusedModel, data: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.module(data[0]).double().softmax(1)


def test_empirical_is_that_of_softmax_regression() -> None:
    """∇_W ℓ = (p − y)·xᵀ, so F_W = 1/n Σ (p − y)²·x²ᵀ and F_b = 1/n Σ (p − y)²."""
    model, trained, data = setting(Softmax(linear, blocks=()))
    found = diagonal(model, trained, data, "empirical", SEEDS)
    apart = probabilities(model, data) - nn.functional.one_hot(data[1], CLASSES)
    weight = (apart**2).T @ data[0].double() ** 2 / len(data[0])
    np.testing.assert_allclose(found["0.weight"], weight, rtol=1e-4)
    np.testing.assert_allclose(found["0.bias"], (apart**2).mean(0), rtol=1e-4)


def test_exact_is_that_of_softmax_regression() -> None:
    """Σ_y p_y·(p_c − δ_yc)² = p_c·(1 − p_c), whatever the labels are."""
    model, trained, data = setting(Softmax(linear, blocks=()))
    found = diagonal(model, trained, data, "exact", SEEDS)
    p = probabilities(model, data)
    weight = (p * (1 - p)).T @ data[0].double() ** 2 / len(data[0])
    np.testing.assert_allclose(found["0.weight"], weight, rtol=1e-4)
    np.testing.assert_allclose(found["0.bias"], (p * (1 - p)).mean(0), rtol=1e-4)
    other = (data[0], (data[1] + 1) % CLASSES)
    again = diagonal(model, trained, other, "exact", SEEDS)
    assert torch.equal(again["0.weight"], found["0.weight"])


def test_sampled_is_exact_on_average_and_follows_its_seeds() -> None:
    model, trained, data = setting(Softmax(linear, blocks=()))
    many = tuple(torch.cat([part] * 2000) for part in data)
    found = diagonal(model, trained, many, "sampled", SEEDS)
    exact = diagonal(model, trained, data, "exact", SEEDS)
    # 24,000 draws: the mean's own error is below 1 % of what a draw may give.
    np.testing.assert_allclose(found["0.bias"], exact["0.bias"], atol=0.01)
    once = [diagonal(model, trained, data, "sampled", SEEDS)["0.bias"] for _ in range(2)]
    assert torch.equal(once[0], once[1])
    other = diagonal(model, trained, data, "sampled", SEEDS.at("other"))["0.bias"]
    assert not torch.equal(once[0], other)


@pytest.mark.parametrize("kind", ["empirical", "exact"])
def test_it_is_the_mean_over_rows_of_squares_of_each_rows_gradient(kind: str) -> None:
    model, trained, data = setting(Softmax(mlp))
    found = diagonal(model, trained, data, kind, SEEDS)
    wanted = {name: torch.zeros_like(p) for name, p in trained.items()}
    for x, y in zip(*data, strict=True):
        logs = model.module(x[None]).log_softmax(1)[0]
        labels = [(int(y), 1.0)] if kind == "empirical" else list(enumerate(logs.exp().tolist()))
        for label, weight in labels:
            grads = torch.autograd.grad(-logs[label], list(trained.values()), retain_graph=True)
            for total, grad in zip(wanted.values(), grads, strict=True):
                total += weight * grad**2 / len(data[0])
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-7, err_msg=name)


@dataclass(frozen=True, eq=False)
class Numbers(Softmax):
    """A loss that looks at values, as no loss does that torch can take rows of together."""

    def loss(self, model: nn.Module, batch: tuple[torch.Tensor, ...]) -> tuple[Any, dict[str, Any]]:
        loss, _ = super().loss(model, batch)
        return loss, {"value": loss.item()}


def test_a_loss_that_cannot_be_vmapped_is_taken_row_by_row(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    model, trained, data = setting(Numbers(mlp))
    found = diagonal(model, trained, data, "empirical", SEEDS)
    assert "row by row" in caplog.text
    wanted = diagonal(*setting(Softmax(mlp)), "empirical", SEEDS)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-8)


def test_many_chunks_give_what_one_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    model, trained, data = setting(Softmax(mlp))
    wanted = diagonal(model, trained, data, "exact", SEEDS)
    monkeypatch.setattr("fedalt.clients.kernels.methods.fisher._CHUNK_BYTES", 1)
    found = diagonal(model, trained, data, "exact", SEEDS)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-8)


def test_running_statistics_are_used_and_stay() -> None:
    """In evaluation mode a row's gradient does not depend on the others."""
    model, trained, data = setting(Softmax(normed, blocks=()))
    before = {name: model.read(name) for name in model.buffers}
    whole = diagonal(model, trained, data, "empirical", SEEDS)
    halves = [
        diagonal(model, trained, tuple(p[part] for p in data), "empirical", SEEDS)
        for part in (slice(0, 6), slice(6, 12))
    ]
    for name, value in whole.items():
        np.testing.assert_allclose(value, (halves[0][name] + halves[1][name]) / 2, rtol=1e-3)
    for name, value in before.items():
        assert np.array_equal(model.read(name), value)


def test_scores_are_asked_for_where_they_are_needed() -> None:
    class Silent(Softmax):
        scores = None  # type: ignore[assignment]

    class Sequences(Softmax):
        def scores(self, model: nn.Module, batch: Any) -> torch.Tensor:
            return model(batch[0])[:, None]

    model, trained, data = setting(Silent())
    with pytest.raises(ConfigError, match=r"params.fisher needs a task with scores.*Silent has"):
        diagonal(model, trained, data, "exact", SEEDS)
    diagonal(model, trained, data, "empirical", SEEDS)
    model, trained, data = setting(Sequences())
    with pytest.raises(ConfigError, match=r"shape \(12, 1, 4\); choose fisher 'empirical'"):
        diagonal(model, trained, data, "sampled", SEEDS)


def test_one_that_is_not_finite_is_refused() -> None:
    model, trained, data = setting(Softmax())
    with pytest.raises(FedaltError, match="Fisher information of the former task is not finite"):
        diagonal(model, trained, (data[0] * float("inf"), data[1]), "empirical", SEEDS)

"""Flower's own strategies, unmodified, against a plain numpy loop of the published rule.

One full-batch step of least squares a round, in float64, so that every number has a closed
form; the numpy loops share nothing with the code under test but the data.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federations import LeastSquares, federate

ROUNDS = 4
LR = 0.1
Vector = np.ndarray
Server = Callable[[int, Vector, list[Vector], list[float]], Vector]


def local(task: LeastSquares, site: int, w: Vector) -> tuple[Vector, float]:
    """One gradient step from w (slope…, offset); also the loss of w itself."""
    x = np.column_stack([task.x[site], np.ones(len(task.x[site]))])
    left = x @ w - task.y[site]
    return w - LR * x.T @ left / len(left), float(np.square(left).mean() / 2)


def numpy_run(task: LeastSquares, server: Server) -> Vector:
    w = np.array([0.5, 0.5, 0.5, 0.0])
    for number in range(1, ROUNDS + 1):
        steps = [local(task, site, w) for site in range(len(task.sizes))]
        w = server(number, w, [s for s, _ in steps], [loss for _, loss in steps])
    return w


def stack(locals_: list[Vector]) -> Vector:
    return np.stack(locals_)


class Rules:
    """The published rules, one method a strategy."""

    def __init__(self, task: LeastSquares) -> None:
        self.share = np.array(task.sizes) / sum(task.sizes)
        self.m = np.zeros(4)
        self.v = np.zeros(4)
        self.momentum: Vector | None = None

    def mean(self, number: int, w: Vector, ws: list[Vector], _: list[float]) -> Vector:
        return self.share @ stack(ws)

    def fedavgm(self, number: int, w: Vector, ws: list[Vector], _: list[float]) -> Vector:
        # Hsu et al., arXiv:1909.06335: v ← βv + Δ, w ← w − ηv
        delta = w - self.share @ stack(ws)
        self.momentum = delta if self.momentum is None else 0.7 * self.momentum + delta
        return w - 0.8 * self.momentum

    def _adaptive(self, w: Vector, ws: list[Vector]) -> Vector:
        delta = self.share @ stack(ws) - w
        self.m = 0.9 * self.m + 0.1 * delta
        return delta

    def fedadam(self, number: int, w: Vector, ws: list[Vector], _: list[float]) -> Vector:
        # Reddi et al., arXiv:2003.00295, with the bias correction Flower adds
        delta = self._adaptive(w, ws)
        self.v = 0.99 * self.v + 0.01 * delta**2
        rate = 0.05 * np.sqrt(1 - 0.99 ** (number + 1)) / (1 - 0.9 ** (number + 1))
        return w + rate * self.m / (np.sqrt(self.v) + 1e-3)

    def fedyogi(self, number: int, w: Vector, ws: list[Vector], _: list[float]) -> Vector:
        delta = self._adaptive(w, ws)
        self.v = self.v - 0.01 * delta**2 * np.sign(self.v - delta**2)
        return w + 0.05 * self.m / (np.sqrt(self.v) + 1e-3)

    def fedadagrad(self, number: int, w: Vector, ws: list[Vector], _: list[float]) -> Vector:
        delta = self.share @ stack(ws) - w
        self.v = self.v + delta**2
        return w + 0.05 * delta / (np.sqrt(self.v) + 1e-3)

    def qfedavg(self, number: int, w: Vector, ws: list[Vector], losses: list[float]) -> Vector:
        # Li et al., arXiv:1905.10497:
        # Δ_k = F_k^q L(w − w_k),  h_k = qF_k^(q−1) ‖L(w − w_k)‖² + L F_k^q
        q, lipschitz = 0.2, 1 / LR
        top, bottom = np.zeros(4), 0.0
        for local_w, loss in zip(ws, losses, strict=True):
            gradient = lipschitz * (w - local_w)
            top += (loss + 1e-10) ** q * gradient
            bottom += q * (loss + 1e-10) ** (q - 1) * gradient @ gradient
            bottom += lipschitz * (loss + 1e-10) ** q
        return w - top / bottom

    def median(self, number: int, w: Vector, ws: list[Vector], _: list[float]) -> Vector:
        return np.median(stack(ws), axis=0)

    def trimmed(self, number: int, w: Vector, ws: list[Vector], _: list[float]) -> Vector:
        ordered = np.sort(stack(ws), axis=0)
        cut = int(0.2 * len(ws))
        return ordered[cut : len(ws) - cut].mean(axis=0)

    def _krum_order(self, ws: list[Vector], hostile: int) -> list[int]:
        # Blanchard et al., NeurIPS 2017: sum of squared distances to the n − f − 2 nearest
        scores = []
        for i, mine in enumerate(ws):
            distances = sorted(float(((mine - w) ** 2).sum()) for j, w in enumerate(ws) if j != i)
            scores.append(sum(distances[: len(ws) - hostile - 2]))
        return [int(i) for i in np.argsort(scores, kind="stable")]

    def krum(self, number: int, w: Vector, ws: list[Vector], _: list[float]) -> Vector:
        return ws[self._krum_order(ws, 1)[0]]

    def multikrum(self, number: int, w: Vector, ws: list[Vector], _: list[float]) -> Vector:
        best = self._krum_order(ws, 1)[:3]
        share = self.share[best] / self.share[best].sum()
        return share @ stack([ws[i] for i in best])

    def bulyan(self, number: int, w: Vector, ws: list[Vector], _: list[float]) -> Vector:
        # El Mhamdi et al., ICML 2018, with Flower's one-pass Multi-Krum selection
        theta = len(ws) - 2
        chosen = stack([ws[i] for i in self._krum_order(ws, 1)[:theta]])
        middle = np.median(chosen, axis=0)
        near = np.argsort(np.abs(chosen - middle), axis=0, kind="stable")[: theta - 2]
        return np.take_along_axis(chosen, near, axis=0).mean(axis=0)


OPT = {"eta": 0.05, "eta_l": LR, "tau": 1e-3}
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "FedAvg": ({}, "mean"),
    "FedProx": ({"proximal_mu": 0.4}, "mean"),
    "FedAvgM": ({"server_learning_rate": 0.8, "server_momentum": 0.7}, "fedavgm"),
    "FedAdam": ({**OPT, "beta_1": 0.9, "beta_2": 0.99}, "fedadam"),
    "FedYogi": ({**OPT, "beta_1": 0.9, "beta_2": 0.99}, "fedyogi"),
    "FedAdagrad": (OPT, "fedadagrad"),
    "QFedAvg": ({"client_learning_rate": LR, "q": 0.2}, "qfedavg"),
    "FedMedian": ({}, "median"),
    "FedTrimmedAvg": ({"beta": 0.2}, "trimmed"),
    "Krum": ({"num_malicious_nodes": 1}, "krum"),
    "MultiKrum": ({"num_malicious_nodes": 1, "num_nodes_to_select": 3}, "multikrum"),
    "Bulyan": ({"num_malicious_nodes": 1}, "bulyan"),
}


def strategy(name: str) -> dict[str, Any]:
    return {
        "_target_": f"flwr.serverapp.strategy.{name}",
        "fraction_evaluate": 0.0,
        **CASES[name][0],
    }


def phases(**params: Any) -> dict[str, Any]:
    train = {"kernel": "gradient", "epochs": 1, "batch_size": 10_000}
    return {"train": {**train, "params": {"lr": LR, **params}}}


@pytest.mark.parametrize("name", CASES)
def test_strategy_equals_its_published_rule(name: str, tmp_path: Path) -> None:
    task = LeastSquares()
    extra = {"report_initial_loss": True} if name == "QFedAvg" else {}
    _, snapshot = federate(
        task, tmp_path / "run", rounds=ROUNDS, strategy=strategy(name), phases=phases(**extra)
    )
    found = np.concatenate([snapshot.model["weight"][0], snapshot.model["bias"]])
    expected = numpy_run(task, getattr(Rules(task), CASES[name][1]))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert found.dtype == np.float64


def test_rules_differ_from_each_other() -> None:
    """The table above can only fail if the rules are not all the same function here."""
    task = LeastSquares()
    results = {
        rule: numpy_run(task, getattr(Rules(task), rule)).round(9).tobytes()
        for rule in {rule for _, rule in CASES.values()}
    }
    assert len(set(results.values())) == len(results)


def test_fedprox_pulls_local_steps_towards_the_global_model(tmp_path: Path) -> None:
    """With two local steps the proximal term shows; its closed form is written out."""
    task, mu = LeastSquares(), 0.4
    steps = {"train": {**phases()["train"], "steps": 2}}
    _, snapshot = federate(
        task, tmp_path / "run", rounds=1, strategy=strategy("FedProx"), phases=steps
    )
    w0 = np.array([0.5, 0.5, 0.5, 0.0])
    ends = []
    for site in range(len(task.sizes)):
        w1, _ = local(task, site, w0)
        w2, _ = local(task, site, w1)
        ends.append(w2 - LR * mu * (w1 - w0))
    expected = Rules(task).share @ stack(ends)
    found = np.concatenate([snapshot.model["weight"][0], snapshot.model["bias"]])
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("name", ["FedAvgM", "FedAdam", "FedYogi", "FedAdagrad"])
def test_server_moments_survive_a_resume(name: str, tmp_path: Path) -> None:
    """A run stopped after two rounds and taken up again equals one that was not stopped."""
    whole, _ = federate(LeastSquares(), tmp_path / "whole", rounds=ROUNDS, strategy=strategy(name))
    federate(LeastSquares(), tmp_path / "half", rounds=2, strategy=strategy(name))
    resumed = continue_run(tmp_path / "half", rounds=ROUNDS)
    assert resumed["weights_sha256"] == whole["weights_sha256"]


def continue_run(folder: Path, rounds: int) -> dict[str, Any]:
    from fedalt.runs.folder import RunFolder
    from fedalt.runs.simulate import simulate

    run = RunFolder(folder)
    task = LeastSquares()
    return simulate({**run.config(), "rounds": rounds}, run, lambda spec: task)  # type: ignore[arg-type]

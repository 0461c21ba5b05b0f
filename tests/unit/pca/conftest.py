"""A plain driver for the kernels and rules of federated PCA, and data with a known answer.

The driver calls kernels and rules as the loop does, on the same values, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from fedalt import manifold
from fedalt.alternation.phase import Phase
from fedalt.anomaly import SiteRows, anomaly_scores
from fedalt.clients.kernels.base import Kernel, Order, SiteContext
from fedalt.clients.kernels.statistics import curvature, moments
from fedalt.seeds import Seeds
from fedalt.server.strategies.rules import rule
from fedalt.server.strategies.rules.base import Contribution, RuleContext
from fedalt.sketch import SCORE_BINS

DIMENSION, FACTORS, SITES, RANK = 34, 6, 20, 6


@dataclass(frozen=True)
class Rows:
    """The driver's task: rows by site, and a pooled test set with its truth."""

    rows: Sequence[SiteRows]
    test: np.ndarray
    attack: np.ndarray

    def site_data(self, site: int) -> SiteRows:
        return self.rows[site]

    def pooled(self) -> np.ndarray:
        return np.concatenate([site.train for site in self.rows])


def make_rows(seed: int = 0, per_site: int = 200) -> Rows:
    """Factor data whose heavy-tailed first column follows a regime that shifts two factors."""
    rng = np.random.default_rng(seed)
    loadings = rng.standard_normal((DIMENSION, FACTORS))
    sigmas = np.linspace(3.0, 1.0, FACTORS)

    def normal(count: int) -> np.ndarray:
        regime = rng.standard_normal(count)
        factors = rng.standard_normal((count, FACTORS)) * sigmas
        factors[:, 0] += 2.0 * regime
        factors[:, 1] -= 1.5 * regime
        rows = factors @ loadings.T + 0.5 * rng.standard_normal((count, DIMENSION))
        rows[:, 0] = np.exp(regime) + 0.1 * rng.standard_normal(count)
        return rows

    train = normal(SITES * per_site)
    shards = np.array_split(train[np.argsort(train[:, 0], kind="stable")], SITES)
    clean, dirty = normal(2000), normal(1000)
    directions = np.linalg.qr(rng.standard_normal((DIMENSION, 4)))[0].T
    size = np.abs(rng.normal(6.0, 2.0, size=(1000, 1)))
    dirty = dirty + size * directions[rng.integers(0, 4, size=1000)]
    cut = per_site // 10
    sites = [SiteRows(shard[cut:], shard[:cut]) for shard in map(rng.permutation, shards)]
    truth = np.concatenate([np.zeros(2000, dtype=bool), np.ones(1000, dtype=bool)])
    return Rows(sites, np.concatenate([clean, dirty]), truth)


@dataclass
class Federation:
    """Sites, their states, the server's arrays and the rule's state; `round` advances them."""

    task: Rows
    arrays: dict[str, np.ndarray]
    seed: int = 0
    states: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)
    rule_state: dict[str, np.ndarray] = field(default_factory=dict)
    metrics: list[dict[str, float]] = field(default_factory=list)
    rounds: int = 0

    def round(
        self,
        kernel: Kernel,
        aggregate: str,
        returns: tuple[str, ...],
        cohort: Sequence[int] | None = None,
        **phase: object,
    ) -> dict[str, float]:
        """Run one round; return the rule's metrics and keep the clients' in `metrics`."""
        work = Phase("test", kernel=kernel.__name__, **phase)  # type: ignore[arg-type]
        self.rounds += 1
        sent = {name: _locked(array) for name, array in self.arrays.items()}
        order = Order("run", self.rounds, work, sent, returns)
        seeds = Seeds(self.seed)
        replies = []
        self.metrics = []
        for site in range(len(self.task.rows)) if cohort is None else sorted(cohort):
            state = self.states.setdefault(site, {})
            for array in state.values():
                array.flags.writeable = False
            done = kernel(order, SiteContext(self.task, site, state, seeds.at(self.rounds, site)))
            assert tuple(done.arrays) == returns
            self.metrics.append(done.metrics)
            replies.append(Contribution(site, float(done.num_examples), done.arrays))
        current = {name: sent[name] for name in returns}
        ctx = RuleContext(self.rounds, work, current, len(self.task.rows), self.rule_state)
        result = rule(aggregate)(ctx, replies)
        self.arrays = {**self.arrays, **result.arrays}
        return result.metrics

    def scale(self) -> Federation:
        """Fit the scaler and set the penalty, as the scenario's first two phases do."""
        self.round(moments, "pooled_moments", ("scaler/mean", "scaler/std"))
        self.round(curvature, "median", ("penalty",))
        return self

    def restart(self, subspace: np.ndarray | None = None) -> Federation:
        """Return a fresh copy with the same scaler and penalty."""
        arrays = dict(self.arrays)
        if subspace is not None:
            arrays["subspace"] = subspace
        return Federation(self.task, arrays, self.seed)


def _locked(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


def start(task: Rows, rank: int = RANK, seed: int = 0) -> Federation:
    """Return a federation before its first round, with a random subspace."""
    dimension = task.rows[0].train.shape[1]
    first = manifold.random_subspace(dimension, rank, Seeds(seed).at("subspace").torch())
    arrays = {
        "scaler/mean": np.zeros(dimension),
        "scaler/std": np.ones(dimension),
        "penalty": np.ones(1),
        "subspace": first.numpy(),
        "covariance": np.zeros((dimension, dimension)),
        "histogram": np.zeros(SCORE_BINS.size),
        "threshold": np.zeros(1),
    }
    return Federation(task, arrays, seed)


@dataclass(frozen=True)
class Central:
    """The answer with all rows in one place: C, its top subspace, that subspace's residual."""

    covariance: torch.Tensor
    subspace: torch.Tensor
    residual: float

    def ratio(self, arrays: Mapping[str, np.ndarray]) -> float:
        """Residual of the arrays' subspace over the central one: 1 is perfect."""
        basis = manifold.qf(torch.tensor(arrays["subspace"]))
        return manifold.residual(self.covariance, basis) / self.residual


def solve_centrally(task: Rows, rank: int = RANK) -> Central:
    rows = task.pooled()
    standard = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    covariance = torch.from_numpy(standard.T @ standard / len(rows))
    best = manifold.top_eigenspace(covariance, rank)
    return Central(covariance, best, manifold.residual(covariance, best))


def test_scores(federation: Federation) -> np.ndarray:
    arrays = federation.arrays
    return anomaly_scores(
        federation.task.test, arrays["scaler/mean"], arrays["scaler/std"], arrays["subspace"]
    )


test_scores.__test__ = False  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def task() -> Rows:
    return make_rows()


@pytest.fixture(scope="session")
def scaled(task: Rows) -> Federation:
    """A federation with its scaler fitted; tests work on `scaled.restart()`."""
    return start(task).scale()


@pytest.fixture(scope="session")
def central(task: Rows) -> Central:
    return solve_centrally(task)

"""A plain driver for the kernels and rules of federated PCA, and data with a known answer.

The driver calls kernels and rules as the loop does, on the same values, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch

from fedalt import manifold
from fedalt.alternation.phase import Phase
from fedalt.alternation.site import Site
from fedalt.anomaly import SiteRows, anomaly_scores
from fedalt.clients.kernels.base import Kernel, Order, SiteContext
from fedalt.clients.kernels.statistics import curvature, moments
from fedalt.data.synthetic import HEAVY_TAILED, synthetic_anomalies
from fedalt.seeds import Seeds
from fedalt.server.strategies.rules import rule
from fedalt.server.strategies.rules.base import Contribution, RuleContext
from fedalt.sketch import SCORE_BINS
from fedalt.task import Task

SITES, RANK = 20, 6


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
    """The synthetic set on sites sorted by its heavy-tailed column; a tenth is held out."""
    data = synthetic_anomalies(
        np.random.default_rng(seed), n_train=SITES * per_site, n_test=3000, attack_fraction=1 / 3
    )
    heavy = data.train_x[:, data.features.index(HEAVY_TAILED)]
    shards = np.array_split(data.train_x[np.argsort(heavy, kind="stable")], SITES)
    cut = per_site // 10
    shuffled = map(np.random.default_rng(seed).permutation, shards)
    sites = [SiteRows(shard[cut:], shard[:cut]) for shard in shuffled]
    return Rows(sites, data.test_x, data.test_attack)


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
        task = cast(Task, self.task)  # these kernels need no more of a task than `site_data`
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
            done = kernel(order, SiteContext(task, site, state, seeds.at(self.rounds, site)))
            assert tuple(done.arrays) == returns
            self.metrics.append(done.metrics)
            replies.append(Contribution(site, float(done.num_examples), done.arrays))
        current = {name: sent[name] for name in returns}
        sites = [Site(i, f"site-{i}", 1) for i in range(len(self.task.rows))]
        ctx = RuleContext(self.rounds, work, current, sites, self.rule_state)
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


def scores_of(federation: Federation) -> np.ndarray:
    arrays = federation.arrays
    return anomaly_scores(
        federation.task.test, arrays["scaler/mean"], arrays["scaler/std"], arrays["subspace"]
    )

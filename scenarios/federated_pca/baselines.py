"""What a federation is measured against: subspaces made without one.

Each method yields a model and a threshold; all thresholds are the same quantile of held-out
normal scores, so that methods differ by their subspace alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from fedalt import manifold
from fedalt.anomaly import anomaly_scores, evaluate_scores, standardise
from fedalt.scenarios.federated_pca.task import FederatedPCA
from fedalt.seeds import Seeds

QUANTILE = 0.95
RANDOM_DRAWS = 20
Scores = Mapping[str, float]


def judge(task: FederatedPCA, subspace: np.ndarray, holdout: np.ndarray) -> dict[str, float]:
    """Judge one subspace (d, k), with its threshold from raw held-out normal rows (h, d)."""
    mean, std = task.scaler
    threshold = float("inf")
    if len(holdout):
        threshold = float(np.quantile(anomaly_scores(holdout, mean, std, subspace), QUANTILE))
    scores = anomaly_scores(task.records.test_x, mean, std, subspace)
    ratio = task.residual(subspace) / task.central_residual if subspace.shape[1] else np.nan
    return {"residual_ratio": ratio, **evaluate_scores(scores, task.records.test_attack, threshold)}


def central(task: FederatedPCA) -> dict[str, float]:
    """PCA on all records in one place: the bound on the residual."""
    return judge(task, task.central_subspace, pooled_holdout(task))


def norm_only(task: FederatedPCA) -> dict[str, float]:
    """No PCA at all, s = ‖x‖²: a subspace of no dimensions."""
    return judge(task, np.zeros((task.dimension, 0)), pooled_holdout(task))


def random_subspace(task: FederatedPCA, seeds: Seeds) -> dict[str, float]:
    """The mean over random subspaces: what the subspace does not matter for, they show."""
    holdout = pooled_holdout(task)
    draws = [
        manifold.random_subspace(task.dimension, task.rank, seeds.at("random", i).torch())
        for i in range(RANDOM_DRAWS)
    ]
    return mean_of([judge(task, draw.numpy(), holdout) for draw in draws])


def local_only(task: FederatedPCA) -> dict[str, float]:
    """Every site with its own PCA and threshold, judged on the same records; mean over sites."""
    results = []
    for site in task.sites:
        rows = task.site_data(site.index)
        standard = standardise(rows.train, *task.scaler)
        spread = torch.from_numpy(standard.T @ standard / len(standard))
        own = manifold.top_eigenspace(spread, task.rank).numpy()
        results.append(judge(task, own, rows.holdout))
    return mean_of(results)


def pooled_holdout(task: FederatedPCA) -> np.ndarray:
    """All sites' held-out rows in one place."""
    return np.concatenate([task.site_data(site.index).holdout for site in task.sites])


def mean_of(results: Sequence[Scores]) -> dict[str, float]:
    """Return the mean of each measure, over those that are defined."""
    means = {}
    for key in results[0]:
        values = [result[key] for result in results if not np.isnan(result[key])]
        means[key] = float(np.mean(values)) if values else float("nan")
    return means

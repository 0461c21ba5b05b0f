"""What a federation is measured against: subspaces made without one.

Each method yields a model and a threshold; all thresholds are the same quantile of held-out
normal scores, so that methods differ by their subspace alone. A measure that needs a
threshold is NaN where nothing is held out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from fedalt import manifold
from fedalt.anomaly import anomaly_scores, evaluate_scores, standardise
from fedalt.scenarios.federated_pca.task import AT_THRESHOLD, FederatedPCA
from fedalt.seeds import Seeds

QUANTILE = 0.95
RANDOM_DRAWS = 20
Scores = Mapping[str, float]


def judge(task: FederatedPCA, subspace: np.ndarray, holdout: np.ndarray) -> dict[str, float]:
    """Judge one subspace (d, k), with its threshold from raw held-out normal rows (h, d)."""
    limit = threshold(task, subspace, holdout)
    scores = anomaly_scores(task.records.test_x, *task.scaler, subspace)
    found = evaluate_scores(scores, task.records.test_attack, limit)
    if not len(holdout):
        found |= dict.fromkeys(AT_THRESHOLD, float("nan"))
    ratio = task.residual(subspace) / task.central_residual if subspace.shape[1] else np.nan
    return {"residual_ratio": ratio, **found}


def threshold(task: FederatedPCA, subspace: np.ndarray, holdout: np.ndarray) -> float:
    """Return the quantile of the held-out normal scores; infinity where nothing is held out."""
    if not len(holdout):
        return float("inf")
    return float(np.quantile(anomaly_scores(holdout, *task.scaler, subspace), QUANTILE))


def central(task: FederatedPCA) -> dict[str, float]:
    """PCA on all records in one place: the bound on the residual."""
    return judge(task, task.central_subspace, pooled_holdout(task))


def norm_only(task: FederatedPCA) -> dict[str, float]:
    """No PCA at all, s = ‖x‖²: a subspace of no dimensions."""
    return judge(task, no_subspace(task), pooled_holdout(task))


def no_subspace(task: FederatedPCA) -> np.ndarray:
    """The subspace (d, 0), from which every record is as far as it is long."""
    return np.zeros((task.dimension, 0))


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
    return mean_of(
        [
            judge(task, own_subspace(task, site.index), task.site_data(site.index).holdout)
            for site in task.sites
        ]
    )


def own_subspace(task: FederatedPCA, site: int) -> np.ndarray:
    """The PCA (d, k) of one site's own training rows, under the pooled scaler."""
    standard = standardise(task.site_data(site).train, *task.scaler)
    spread = torch.from_numpy(standard.T @ standard / len(standard))
    own: np.ndarray = manifold.top_eigenspace(spread, task.rank).numpy()
    return own


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

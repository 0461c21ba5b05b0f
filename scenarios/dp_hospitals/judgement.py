"""How well scores tell the ill from the others: over all hospitals, and in each.

accuracy   share of patients on whose side of 0 the score lies
loss       mean cross-entropy of σ(score), in nats
auc        P(an ill patient scores higher than another one), pooled over hospitals
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def judge(scores: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Return the measures of scores (n,) and of whether patients are ill (n,), by hospital.

    ``accuracy_NAME`` and ``auc_NAME`` are a hospital's own; ``worst_auc`` is the least of these.
    """
    pooled = [np.concatenate(parts) for parts in zip(*scores.values(), strict=True)]
    found = {"accuracy": _accuracy(*pooled), "loss": _loss(*pooled), "auc": area(*pooled)}
    areas = {name: area(*own) for name, own in scores.items()}
    small = sorted(scores, key=lambda name: len(scores[name][1]))[:2]
    found["auc_small"] = sum(areas[name] for name in small) / len(small)
    found["worst_auc"] = min(areas.values())
    for name, own in scores.items():
        found[f"accuracy_{name}"], found[f"auc_{name}"] = _accuracy(*own), areas[name]
    return found


def area(score: np.ndarray, ill: np.ndarray) -> float:
    """Return the area under the ROC curve; there are patients of both kinds."""
    from sklearn.metrics import roc_auc_score  # type: ignore[import-untyped]

    return float(roc_auc_score(ill, score))


def _accuracy(score: np.ndarray, ill: np.ndarray) -> float:
    return float(((score > 0) == ill).mean())


def _loss(score: np.ndarray, ill: np.ndarray) -> float:
    return float(np.logaddexp(0.0, np.where(ill, -score, score)).mean())

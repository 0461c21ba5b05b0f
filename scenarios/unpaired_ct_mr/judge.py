"""Judging a segmentation model on scans: predicted, compared organ by organ, gathered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from fedalt.medical.organ_scores import ScoreTable, judge
from fedalt.medical.windows import predict
from fedalt.scenarios.unpaired_ct_mr.source import MODALITIES, Scan

BATCH = 16


@torch.no_grad()
def predictions(
    model: nn.Module, scans: Sequence[Scan], size: Sequence[int], *, swapped: bool = False
) -> list[np.ndarray]:
    """Return the labels (x, y[, z]) uint8 that a model gives each scan.

    Scans of the network's own ``size`` are read as a whole, many at a time but of one modality,
    larger ones by sliding windows. With ``swapped`` the model is told the other modality.
    """
    found: dict[int, np.ndarray] = {}
    for modality in MODALITIES:
        own = [i for i, scan in enumerate(scans) if scan.modality == modality]
        told = MODALITIES.index(modality)
        told = 1 - told if swapped else told
        whole = [i for i in own if scans[i].image.shape == tuple(size)]
        for start in range(0, len(whole), BATCH):
            some = whole[start : start + BATCH]
            images = np.stack([scans[i].image for i in some])
            found.update(zip(some, _labels(model, images, told), strict=True))
        for i in own:
            if i not in found:
                found[i] = _windows(model, scans[i].image, size, told)
    return [found[i] for i in range(len(scans))]


def score(
    scans: Sequence[Scan],
    predicted: Sequence[np.ndarray],
    organs: Sequence[str],
    *,
    surfaces: bool = False,
) -> ScoreTable:
    """Compare predictions with the truth; distances of surfaces only where they are asked for."""
    table = ScoreTable(tuple(organs))
    for scan, labels in zip(scans, predicted, strict=True):
        scores = judge(
            labels, scan.label, organs, scan.spacing, known=scan.known, surfaces=surfaces
        )
        table.add(scores, scan.modality, scan.site, scan.name)
    return table


def judged(
    model: nn.Module,
    scans: Sequence[Scan],
    organs: Sequence[str],
    size: Sequence[int],
    *,
    swapped: bool = False,
) -> ScoreTable:
    """Predict scans and compare by overlap; as :func:`predictions` and :func:`score`."""
    return score(scans, predictions(model, scans, size, swapped=swapped), organs)


def balanced(table: ScoreTable, measure: str = "dice") -> float:
    """Return a measure's mean over modalities, which weigh alike; NaN without cases."""
    means = [table.mean(measure, modality=name) for name in table.modalities]
    return float(np.mean(means)) if means else float("nan")


def _labels(model: nn.Module, images: np.ndarray, modality: int) -> np.ndarray:
    device = next(model.parameters()).device
    given = torch.from_numpy(images).unsqueeze(1).to(device)
    told = torch.full((len(images),), modality, dtype=torch.int64, device=device)
    labels: np.ndarray = model(given, told).argmax(1).to(torch.uint8).cpu().numpy()
    return labels


def _windows(model: nn.Module, image: np.ndarray, size: Sequence[int], modality: int) -> np.ndarray:
    device = next(model.parameters()).device

    def network(windows: torch.Tensor) -> torch.Tensor:
        told = torch.full((len(windows),), modality, dtype=torch.int64, device=windows.device)
        logits: torch.Tensor = model(windows, told)
        return logits

    # Outside of a normalised volume is air: 0 in CT's window, and in MR what zero voxels stay.
    return predict(network, image, size, device=device)

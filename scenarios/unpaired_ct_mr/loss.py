"""Soft Dice plus cross-entropy, where sites label different organs.

For a row with softmax probabilities p_k(x) and known classes, the classes that its site does not
label are merged into background, where their voxels are in the labels (the marginal loss, Shi et
al. 2021, Medical Image Analysis 70:101979):

    q_0 = p_0 + Σ_{k unknown} p_k,   q_k = p_k for known k ≥ 1
    CE   = −mean_x log q_{y(x)}(x)
    Dice = mean_{k known} 1 − (2 Σ_x q_k y_k + ε) / (Σ_x q_k + Σ_x y_k + ε),   ε = 1e-5

Both are taken of each row by itself and averaged over rows, so that the loss of a batch is the
mean of its rows' losses. With all classes known this is monai's ``DiceCELoss(softmax=True,
to_onehot_y=True)``: a known class that a row has no voxel of counts, nearly as a constant 1 until
its probabilities all but vanish. No value steers the computation, so it can be traced and
batched.
"""

from __future__ import annotations

import torch

SMOOTH = 1e-5


def dice_ce(
    logits: torch.Tensor, label: torch.Tensor, known: torch.Tensor
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the mean loss and the metric ``dice``, both of no dimensions.

    ``logits`` (n, K, *size), ``label`` (n, *size) whole numbers below K, ``known`` (n, K) bool with
    background known. Voxels labelled with an unknown class count as background.
    """
    # Sums over a volume in half precision would lose small organs.
    exact = logits.flatten(2).to(torch.promote_types(logits.dtype, torch.float32))
    merged, truth, given = _merged(exact, label.flatten(1), known)
    log_q = torch.log_softmax(merged, 1)
    q = log_q.exp()
    cross_entropy = -(truth * log_q).sum(1).mean(1)
    overlap = 1.0 - _ratio((q * truth).sum(2), q.sum(2) + truth.sum(2), SMOOTH)
    soft_dice = (overlap * given).sum(1) / given.sum(1)
    loss = (cross_entropy + soft_dice).mean()
    return loss, {"dice": hard_dice(merged.detach(), truth, given).mean()}


def hard_dice(merged: torch.Tensor, truth: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """Return each row's Dice (n,): the mean over its known organs that it has voxels of.

    A row without any counts 1 if no known organ is predicted there, else 0.
    ``merged`` and ``truth`` (n, K, s), ``given`` (n, K) are 0 or 1 but for the logits.
    """
    classes = torch.arange(truth.shape[1], device=truth.device)
    # Ten times as fast as argmax over a dimension that is not the last.
    winner = merged.max(1, keepdim=True).indices
    found = (winner == classes.unsqueeze(1)).to(truth.dtype)
    true, predicted = truth.sum(2)[:, 1:], found.sum(2)[:, 1:]
    organs = _ratio((found * truth).sum(2)[:, 1:], true + predicted, SMOOTH)
    present = (true > 0).to(truth.dtype) * given[:, 1:]
    count = present.sum(1)
    mean = (organs * present).sum(1) / count.clamp(min=1.0)
    return torch.where(count > 0, mean, (predicted.sum(1) == 0).to(truth.dtype))


def _merged(
    logits: torch.Tensor, label: torch.Tensor, known: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return logits and truth (n, K, s) with unknown classes in background, and ``known`` as 0, 1.

    Logits of unknown classes become so low that their probability is 0, but finite: infinity
    times 0 would be no number.
    """
    classes = torch.arange(logits.shape[1], device=logits.device)
    truth = (label.unsqueeze(1) == classes.unsqueeze(1)).to(logits.dtype)
    organ = (classes > 0).unsqueeze(1)
    kept = known.unsqueeze(2)
    low = torch.full((), -1e9, dtype=logits.dtype, device=logits.device)
    background = torch.where(kept & organ, low, logits).logsumexp(1, keepdim=True)
    merged = torch.where(organ, torch.where(kept, logits, low), background)
    rest = torch.where(kept & organ, 0.0, truth).sum(1, keepdim=True)
    truth = torch.where(organ, truth * kept, rest)
    return merged, truth, known.to(logits.dtype)


def _ratio(both: torch.Tensor, total: torch.Tensor, smooth: float) -> torch.Tensor:
    return (2.0 * both + smooth) / (total + smooth)

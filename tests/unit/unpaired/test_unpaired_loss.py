"""Promise: Dice plus cross-entropy as monai has it, and by the marginal loss where labels lack."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.func import vmap

from fedalt.scenarios.unpaired_ct_mr.loss import dice_ce

ROWS, CLASSES = 4, 4


def batch(size: tuple[int, ...] = (6, 5)) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    logits = 2.0 * torch.randn(ROWS, CLASSES, *size, generator=generator)
    label = torch.randint(0, CLASSES, (ROWS, *size), generator=generator)
    label[1][label[1] == 2] = 0
    return logits, label, torch.ones(ROWS, CLASSES, dtype=torch.bool)


def partly() -> torch.Tensor:
    return torch.tensor([[1, 1, 1, 1], [1, 1, 0, 1], [1, 0, 0, 1], [1, 0, 0, 0]], dtype=torch.bool)


def by_hand(logits: np.ndarray, label: np.ndarray, known: np.ndarray) -> tuple[float, float]:
    """Loss and hard Dice of one row in loops: logits (K, s), label (s,), known (K,)."""
    p = np.exp(logits - logits.max(0))
    p /= p.sum(0)
    unknown = [k for k in range(len(known)) if not known[k]]
    q, truth = p.copy(), np.array([0 if y in unknown else y for y in label])
    q[0] += q[unknown].sum(0)
    ce = -np.mean([np.log(q[y, x]) for x, y in enumerate(truth)])
    classes = [k for k in range(len(known)) if known[k]]
    soft, hard = [], []
    winner = np.array(classes)[q[classes].argmax(0)]
    for k in classes:
        y = truth == k
        soft.append(1 - (2 * q[k][y].sum() + 1e-5) / (q[k].sum() + y.sum() + 1e-5))
        if k and y.any():
            found = winner == k
            hard.append(2 * (found & y).sum() / (found.sum() + y.sum()))
    none = float(not (winner > 0).any())
    return float(ce + np.mean(soft)), float(np.mean(hard)) if hard else none


@pytest.mark.parametrize("size", [(6, 5), (3, 4, 5)])
def test_all_known_is_monais_loss(size: tuple[int, ...]) -> None:
    losses = pytest.importorskip("monai.losses")
    logits, label, known = batch(size)
    wanted = losses.DiceCELoss(softmax=True, to_onehot_y=True)(logits, label.unsqueeze(1))
    assert dice_ce(logits, label, known)[0].item() == pytest.approx(wanted.item(), abs=1e-6)


def test_partial_labels_match_a_loop_over_rows() -> None:
    logits, label, _ = batch()
    known = partly()
    rows = [
        by_hand(z.flatten(1).double().numpy(), y.flatten().numpy(), k.numpy())
        for z, y, k in zip(logits, label, known, strict=True)
    ]
    loss, metrics = dice_ce(logits, label, known)
    assert loss.item() == pytest.approx(np.mean([row[0] for row in rows]), abs=1e-5)
    assert metrics["dice"].item() == pytest.approx(np.mean([row[1] for row in rows]), abs=1e-5)


def test_a_batchs_loss_is_the_mean_of_its_rows_and_rows_can_be_batched() -> None:
    logits, label, _ = batch()
    known = partly()

    def row(*parts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        loss, metrics = dice_ce(*(part.unsqueeze(0) for part in parts))  # type: ignore[arg-type]
        return loss, metrics["dice"]

    losses, dices = vmap(row)(logits, label, known)
    loss, metrics = dice_ce(logits, label, known)
    torch.testing.assert_close(losses.mean(), loss)
    torch.testing.assert_close(dices.mean(), metrics["dice"])


def test_labels_of_an_unknown_class_are_background() -> None:
    logits, label, _ = batch()
    known = partly()
    written = torch.where(known.gather(1, label.flatten(1)).reshape(label.shape), label, 0)
    assert torch.equal(dice_ce(logits, label, known)[0], dice_ce(logits, written, known)[0])


def test_what_a_site_does_not_label_is_not_held_against_the_model() -> None:
    label = torch.zeros(1, 4, 4, dtype=torch.long)
    known = torch.tensor([[True, True, False]])
    logits = torch.full((1, 3, 4, 4), -9.0)
    logits[:, 2] = 9.0
    loss, metrics = dice_ce(logits.requires_grad_(), label, known)
    all_known = dice_ce(logits, label, torch.ones_like(known))[0]
    # Class 1 is known and absent: its Dice stays near 1, as in monai.
    assert loss.item() < 0.51 < 10.0 < all_known.item()
    assert metrics["dice"].item() == 1.0
    loss.backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


def test_dice_of_a_row_without_organs_is_one_only_if_none_is_predicted() -> None:
    label = torch.zeros(2, 3, 3, dtype=torch.long)
    logits = torch.zeros(2, 2, 3, 3)
    logits[:, 0] = 5.0
    logits[1, 1, 0, 0] = 9.0
    assert dice_ce(logits, label, torch.ones(2, 2, dtype=torch.bool))[1]["dice"].item() == 0.5

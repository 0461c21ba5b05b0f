"""Promise: what normalises is what the policy says, in training and in evaluation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fedalt.scenarios.unpaired_ct_mr.norms import (
    NORMS,
    group_norm,
    norm_of,
    replace_instance_norms,
    with_batch_statistics,
)


def small(policy: str) -> nn.Module:
    model = nn.Sequential(nn.Conv2d(1, 6, 1), nn.Sequential(nn.InstanceNorm2d(6, affine=True)))
    replace_instance_norms(model, norm_of(policy, 2))
    return model


def standard(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)


@pytest.mark.parametrize(
    ("channels", "groups"), [(1, 1), (6, 2), (7, 1), (8, 2), (24, 8), (48, 16), (64, 16), (768, 16)]
)
def test_groups_divide_channels_and_hold_three_or_more(channels: int, groups: int) -> None:
    assert group_norm(channels).num_groups == groups


@pytest.mark.parametrize("policy", NORMS)
@pytest.mark.parametrize("training", [True, False])
def test_a_policy_normalises_over_its_own_axes(policy: str, training: bool) -> None:
    model = small(policy).train(training)
    x = 3.0 + 2.0 * torch.randn(4, 1, 5, 5, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        raw, found = model[0](x).numpy(), model(x).numpy()  # type: ignore[index]
    grouped = standard(raw.reshape(4, 2, -1), (2,)).reshape(raw.shape)
    wanted = {
        "group": grouped,
        "instance": standard(raw, (2, 3)),
        "batch_statistics": standard(raw, (0, 2, 3)),
        # In evaluation the running statistics, which begin as mean 0 and variance 1.
        "batch": standard(raw, (0, 2, 3)) if training else raw / np.sqrt(1 + 1e-5),
    }[policy]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("policy", NORMS)
def test_only_batch_normalisation_keeps_running_statistics(policy: str) -> None:
    kept = [name for name in small(policy).state_dict() if "running" in name or "tracked" in name]
    assert len(kept) == (3 if policy == "batch" else 0)


def test_the_same_weights_can_be_judged_with_batch_statistics() -> None:
    model, reference = small("batch"), small("batch_statistics")
    x = torch.randn(4, 1, 5, 5) + 7.0
    model(x)
    model.eval()
    reference.load_state_dict(
        {
            name: value
            for name, value in model.state_dict().items()
            if "weight" in name or "bias" in name
        }
    )
    former = {name: value.clone() for name, value in model.state_dict().items()}
    before = model(x)
    with with_batch_statistics(model) as lent:
        found = lent(x)
    torch.testing.assert_close(found, reference.eval()(x))
    assert not torch.allclose(found, before)
    torch.testing.assert_close(model(x), before)
    for name, value in model.state_dict().items():
        assert torch.equal(value, former[name]), name
    assert not any(module.training for module in model.modules())

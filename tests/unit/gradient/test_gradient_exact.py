"""Promise: float32 means float32 on a GPU too, and torch's own setting is as it was afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from gradient_toys import ToyTask, order_of, phase_of

from fedalt.clients.kernels.exact import each_exact, exact

ORDER = replace(order_of(ToyTask(), phase_of()), device="cuda:0")


def rounded() -> bool:
    """Say whether cuDNN may round to TF32 now."""
    return bool(torch.backends.cudnn.allow_tf32)


@pytest.fixture(params=[True, False])
def former(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Begin with TF32 allowed or not."""
    before = rounded()
    torch.backends.cudnn.allow_tf32 = request.param
    yield request.param
    torch.backends.cudnn.allow_tf32 = before


def test_convolutions_are_not_rounded_within_and_all_is_as_it_was_after(former: bool) -> None:
    with exact(ORDER):
        assert not rounded()
    assert rounded() == former
    with pytest.raises(ZeroDivisionError), exact(ORDER):
        raise ZeroDivisionError
    assert rounded() == former


def test_between_the_works_of_a_cohort_all_is_as_it_was(former: bool) -> None:
    seen = []
    for inside in each_exact(ORDER, (rounded() for _ in range(3))):
        seen.append((inside, rounded()))
    assert seen == [(False, former)] * 3
    assert rounded() == former


def test_a_lower_precision_and_a_cpu_are_left_alone(former: bool) -> None:
    for order in (replace(ORDER, precision="bfloat16"), replace(ORDER, device="cpu")):
        with exact(order):
            assert rounded() == former


def test_switches_that_were_set_apart_by_hand_are_left_alone() -> None:
    conv = torch.backends.cudnn.conv
    before = conv.fp32_precision
    conv.fp32_precision = "ieee" if before != "ieee" else "tf32"
    wanted = conv.fp32_precision
    try:
        with exact(ORDER):
            assert conv.fp32_precision == wanted
        assert conv.fp32_precision == wanted
    finally:
        conv.fp32_precision = before

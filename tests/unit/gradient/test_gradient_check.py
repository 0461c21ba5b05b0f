"""Hyper-parameters are judged before a run, without data."""

from __future__ import annotations

import pytest

from fedalt.alternation.phase import Phase
from fedalt.clients.kernels.gradient import GradientKernel
from fedalt.errors import ConfigError


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"lr": "abc"}, "phase 'train': .*lr"),
        ({"lrr": 0.1}, r"phase 'train': unknown params.lrr \(did you mean 'lr'"),
        ({"optimizer": "adamm"}, "phase 'train': .*adam"),
        ({"clip_norm": -1.0}, "params.clip_norm is -1.0"),
    ],
)
def test_wrong_params_are_refused(params: dict[str, float | str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GradientKernel().check(Phase("train", params=params))


def test_right_params_pass() -> None:
    GradientKernel().check(Phase("train", params={"lr": 0.1, "momentum": 0.9}))

"""What record-level privacy costs federated PCA, and for whom: the scenario's claim, shortened."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from claims_runs import Runs, interval

from fedalt.scenario import find_scenario

SEEDS = (0, 1)
needs_nsl_kdd = pytest.mark.skipif(
    not (Path(os.environ.get("FEDALT_DATA", "")) / "nsl_kdd").is_dir(),
    reason="FEDALT_DATA holds no nsl_kdd",
)
Arm = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Arm:
    """The residual ratios of an arm of the claim over seeds."""
    scenario, runs = find_scenario("dp_federated_pca"), Runs(tmp_path_factory.mktemp("runs"))
    claim = scenario.config()["claim"]

    def ratios(name: str, *more: str, seeds: Sequence[int] = SEEDS) -> np.ndarray:
        found = []
        for seed in seeds:
            changes = (*claim["base"], *more, *claim["arms"][name], f"seed={seed}")
            run = runs.carry_out(changes, lambda c=changes: scenario.config(c))  # type: ignore[misc]
            found.append(float(run.result["metrics"]["server/residual_ratio"]))
        return np.array(found)

    return ratios


def test_much_privacy_is_had_for_little_and_more_of_it_for_much(arm: Arm) -> None:
    free, eight, one, tenth = (arm(name) for name in ("free", "eps-8", "eps-1", "eps-0.1"))
    assert np.abs(free - 1.0).max() < 0.01, interval(free.tolist())
    assert (eight - free).max() < 0.05, interval(eight.tolist())
    assert min(one - free) > 0.1 and max(one - free) < 0.5, interval(one.tolist())
    assert min(tenth - one) > 5.0, interval(tenth.tolist())


def test_one_release_is_worth_more_than_four_rounds_of_as_much(arm: Arm) -> None:
    once, rounds = arm("eps-1"), arm("rounds-1")
    assert np.abs(arm("rounds") - arm("free")).max() < 1e-3, "without noise both find the same"
    assert min(rounds - once) > 0.5, interval((rounds - once).tolist())


def test_noise_at_the_site_costs_by_the_number_of_sites(arm: Arm) -> None:
    costs = [arm(name).mean() - 1.0 for name in ("one_site-1", "few_sites-1", "eps-1")]
    many = arm("many_sites-1").mean() - 1.0
    assert costs[0] < costs[1] < costs[2] < many, (*costs, many)
    assert many > 10 * costs[0]


@needs_nsl_kdd
def test_on_nsl_kdd_an_epsilon_of_one_is_nearly_free_and_centring_worth_its_share(arm: Arm) -> None:
    data = ("task.data=nsl_kdd", "task.rank=5", "phases.centre.privacy.clip=2.0")
    centred = arm("eps-1", *data, "phases.summary.privacy.clip=2.0", seeds=(0,))
    uncentred = arm("uncentred-1", *data, "phases.summary.privacy.clip=4.0", seeds=(0,))
    assert centred.max() < 1.03 < 1.1 < uncentred.min(), (centred, uncentred)

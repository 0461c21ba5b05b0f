"""Federated PCA finds the central subspace: against eigh, never against benchmark accuracy.

The residual ratio is the residual of the federated subspace over that of the central one.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pca_driver import (
    SITES,
    Central,
    Federation,
    make_rows,
    scores_of,
    solve_centrally,
    start,
)

from fedalt import manifold
from fedalt.alternation.phase import Scalar
from fedalt.anomaly import evaluate_scores
from fedalt.clients.kernels.statistics import covariance, score_histogram
from fedalt.clients.kernels.subspace import euclidean, grassmann, power
from fedalt.seeds import Seeds
from fedalt.sketch import SCORE_BINS

SUBSPACE = ("subspace",)


def run_fedpg(federation: Federation, rounds: int = 60, **params: Scalar) -> Federation:
    for _ in range(rounds):
        federation.round(grassmann, "consensus", SUBSPACE, params=params)
    return federation


def auc(federation: Federation) -> float:
    return evaluate_scores(scores_of(federation), federation.task.attack, 1.0)["auc"]


@pytest.fixture(scope="module")
def fitted(scaled: Federation) -> Federation:
    return run_fedpg(scaled.restart())


def test_fedpg_reaches_the_central_subspace(
    fitted: Federation, scaled: Federation, central: Central
) -> None:
    assert central.ratio(fitted.arrays) < 1.01
    best = scaled.restart(central.subspace.numpy())
    assert auc(fitted) == pytest.approx(auc(best), abs=0.005)
    assert max(client["primal"] for client in fitted.metrics) < 0.1


def test_a_random_subspace_does_not_detect(scaled: Federation) -> None:
    values = [
        auc(scaled.restart(manifold.random_subspace(34, 6, Seeds(s).torch()).numpy()))
        for s in range(5)
    ]
    assert np.mean(values) < 0.6


def test_without_the_dual_it_is_worse(
    fitted: Federation, scaled: Federation, central: Central
) -> None:
    without = run_fedpg(scaled.restart(), dual="off")
    assert central.ratio(without.arrays) > central.ratio(fitted.arrays) + 0.02


def test_with_the_wrong_dual_sign_it_fails(scaled: Federation, central: Central) -> None:
    wrong = run_fedpg(scaled.restart(), dual="wrong")
    assert central.ratio(wrong.arrays) > 2.0


def test_without_alignment_it_drifts(scaled: Federation, central: Central) -> None:
    """The turn of U inside its subspace that QR leaves behind adds up in the dual."""
    aligned = run_fedpg(scaled.restart(), rounds=120)
    free = run_fedpg(scaled.restart(), rounds=120, align=False)
    assert central.ratio(aligned.arrays) < 1.001
    assert central.ratio(free.arrays) > 1.02
    assert max(c["dual"] for c in free.metrics) > 3 * max(c["dual"] for c in aligned.metrics)


def test_nothing_depends_on_the_basis_of_the_subspace(
    fitted: Federation, scaled: Federation, central: Central
) -> None:
    turn = manifold.qf(torch.randn(6, 6, dtype=torch.float64, generator=Seeds(5).torch()))
    turned = fitted.restart(fitted.arrays["subspace"] @ turn.numpy())
    np.testing.assert_allclose(scores_of(turned), scores_of(fitted), rtol=1e-9)
    assert central.ratio(turned.arrays) == pytest.approx(central.ratio(fitted.arrays), rel=1e-12)

    plain = scaled.restart()
    other = scaled.restart(scaled.arrays["subspace"] @ turn.numpy())
    for _ in range(10):
        for federation in (plain, other):
            federation.round(grassmann, "consensus", SUBSPACE)
        assert central.ratio(other.arrays) == pytest.approx(central.ratio(plain.arrays), rel=1e-9)


def test_fedpe_comes_close(scaled: Federation, central: Central) -> None:
    federation = scaled.restart()
    for _ in range(100):
        federation.round(euclidean, "consensus", SUBSPACE, params={"manifold": "euclidean"})
    assert central.ratio(federation.arrays) < 1.02
    assert all(set(c) == set(federation.metrics[0]) for c in federation.metrics)


def test_power_iteration_equals_eigh(scaled: Federation, central: Central) -> None:
    federation = scaled.restart()
    for _ in range(60):
        federation.round(power, "orthonormal", SUBSPACE)
    found = torch.tensor(federation.arrays["subspace"])
    # Projectors, not subspace_distance: that is a square root of rounding near zero.
    projector, best = found @ found.T, central.subspace @ central.subspace.T
    torch.testing.assert_close(projector, best, rtol=0.0, atol=1e-6)


@pytest.mark.parametrize(
    ("summary", "low", "high"),
    [("exact", 1.0 - 1e-12, 1.0 + 1e-8), ("scaled", 1.0, 1.01), ("projector", 1.0, 1.5)],
)
def test_one_shot_merges(
    scaled: Federation, central: Central, summary: str, low: float, high: float
) -> None:
    federation = scaled.restart()
    returns = ("covariance", "subspace")
    federation.round(covariance, "top_eigenspace", returns, params={"summary": summary})
    assert low <= central.ratio(federation.arrays) < high
    if summary == "exact":
        error = federation.arrays["covariance"] - central.covariance.numpy()
        assert np.abs(error).max() < 1e-8


def test_the_federated_threshold_is_the_central_quantile(fitted: Federation) -> None:
    federation = fitted.restart()
    metrics = federation.round(score_histogram, "quantile", ("histogram", "threshold"))
    task, arrays = federation.task, federation.arrays
    holdout = np.concatenate([site.holdout for site in task.rows])
    standard = (holdout - arrays["scaler/mean"]) / arrays["scaler/std"]
    basis = arrays["subspace"]
    scores = np.square(standard - standard @ basis @ basis.T).sum(axis=1)
    exact = np.quantile(scores, 0.95, method="inverted_cdf")
    assert arrays["threshold"] == pytest.approx([exact], rel=SCORE_BINS.relative_error)
    assert metrics == {"held_out": float(len(holdout))}


@pytest.mark.parametrize("seed", [0, 1])
def test_partial_participation_needs_the_table(seed: int) -> None:
    """2 of 20 sites a round; the mean over the last rounds, as the plain mean never settles."""
    task = make_rows(seed)
    central, scaled = solve_centrally(task), start(task, seed=seed).scale()
    ratio = {}
    for table in (True, False):
        federation, rng = scaled.restart(), np.random.default_rng(seed)
        last = []
        for number in range(300):
            cohort = rng.choice(SITES, size=2, replace=False).tolist()
            params = {"table": table}
            federation.round(grassmann, "consensus", SUBSPACE, cohort, params=params)
            if number >= 250:
                last.append(central.ratio(federation.arrays))
        ratio[table] = float(np.mean(last))
    assert ratio[True] <= 1.14
    assert ratio[False] >= 1.18

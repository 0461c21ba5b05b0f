"""Scores, metrics and the histogram sketch against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from fedalt.anomaly import anomaly_scores, evaluate_scores, family_recall
from fedalt.errors import ConfigError, DataError
from fedalt.sketch import SCORE_BINS, LogBins


def test_scores_are_squared_distances_whatever_the_basis_of_the_subspace() -> None:
    rng = np.random.default_rng(0)
    rows, mean, std = rng.standard_normal((50, 8)), rng.standard_normal(8), rng.uniform(1, 2, 8)
    basis = np.linalg.qr(rng.standard_normal((8, 3)))[0]
    standard = (rows - mean) / std
    expected = [float(np.sum((x - basis @ (basis.T @ x)) ** 2)) for x in standard]
    np.testing.assert_allclose(anomaly_scores(rows, mean, std, basis), expected, rtol=1e-10)
    turned = basis @ rng.standard_normal((3, 3))
    np.testing.assert_allclose(anomaly_scores(rows, mean, std, turned), expected, rtol=1e-8)
    inside = mean + std * (basis @ rng.standard_normal((3, 5))).T
    assert anomaly_scores(inside, mean, std, basis).max() < 1e-28
    assert anomaly_scores(rows[:0], mean, std, basis).shape == (0,)


def test_metrics_on_a_case_done_by_hand() -> None:
    scores = np.array([0.1, 0.2, 0.3, 0.9, 0.8, 0.25])
    attack = np.array([False, False, False, False, True, True])
    result = evaluate_scores(scores, attack, threshold=0.28)
    # Alarms: 0.3 and 0.9 (normal), 0.8 (attack). Pairs won: 3 of 4 by 0.8, 2 of 4 by 0.25.
    assert result["auc"] == pytest.approx(5 / 8)
    assert result["precision"] == pytest.approx(1 / 3)
    assert result["recall"] == pytest.approx(1 / 2)
    assert result["fpr"] == pytest.approx(2 / 4)
    assert result["f1"] == pytest.approx(2 / 5)
    assert result["ap"] == pytest.approx(0.5 * 1 / 2 + 0.5 * 2 / 4)
    assert result["tpr_at_fpr5"] == 0.0


def test_what_is_undefined_is_nan() -> None:
    scores = np.array([0.5, 1.5])
    calm = evaluate_scores(scores, np.zeros(2, dtype=bool), 1.0)
    assert calm["fpr"] == 0.5
    assert all(np.isnan(value) for name, value in calm.items() if name != "fpr")
    siege = evaluate_scores(scores, np.ones(2, dtype=bool), 1.0)
    assert siege["recall"] == 0.5 and siege["precision"] == 1.0
    assert all(np.isnan(siege[name]) for name in ("auc", "ap", "fpr", "tpr_at_fpr5"))
    flat = evaluate_scores(np.ones(4), np.array([True, False, False, False]), 2.0)
    assert flat["auc"] == 0.5 and flat["ap"] == 0.25 and flat["f1"] == 0.0
    assert flat["tpr_at_fpr5"] == 0.0 and np.isnan(flat["precision"])


def test_bad_scores_are_refused() -> None:
    with pytest.raises(DataError, match="1 scores are NaN"):
        evaluate_scores(np.array([np.nan, 1.0]), np.array([True, False]), 1.0)
    with pytest.raises(DataError, match="do not fit"):
        evaluate_scores(np.ones(3), np.array([True, False]), 1.0)


def test_recall_by_family() -> None:
    recall = family_recall(np.array([3.0, 1.0, 3.0, 9.0]), ["dos", "dos", "probe", ""], 2.0)
    assert recall == {"dos": 0.5, "probe": 1.0}


@pytest.mark.parametrize("q", [0.01, 0.5, 0.9, 0.95, 0.999, 1.0])
@pytest.mark.parametrize("bins", [SCORE_BINS, LogBins(-6, 6, 10)])
def test_a_quantile_is_within_the_stated_relative_error(q: float, bins: LogBins) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        values = np.exp(rng.normal(0.0, 3.0, size=int(rng.integers(1, 400))))
        exact = np.quantile(values, q, method="inverted_cdf")
        found = bins.quantile(bins.count(values), q)
        assert abs(found - exact) <= bins.relative_error * exact * (1 + 1e-12)
    assert SCORE_BINS.relative_error < 0.012


def test_sketches_merge_by_adding() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.exponential(size=30), np.zeros(0)
    merged = SCORE_BINS.count(one) + SCORE_BINS.count(other)
    np.testing.assert_array_equal(merged, SCORE_BINS.count(np.concatenate([one, other])))
    assert merged.shape == (SCORE_BINS.size,) and merged.sum() == 30


def test_values_outside_the_range_keep_their_rank() -> None:
    bins = LogBins(-1, 1, 10)
    counts = bins.count(np.array([0.0, 0.1 - 1e-9, 0.1, 5.0, 10.0, np.inf]))
    assert counts[0] == 2 and counts[1] == 1 and counts[-1] == 2
    assert bins.quantile(counts, 0.2) == pytest.approx(0.1)
    with pytest.raises(DataError, match="above 10\\^1"):
        bins.quantile(counts, 0.9)


def test_sketches_that_cannot_be_read_are_refused() -> None:
    with pytest.raises(DataError, match="empty"):
        SCORE_BINS.quantile(np.zeros(SCORE_BINS.size), 0.5)
    with pytest.raises(DataError, match=r"shape \(3,\)"):
        SCORE_BINS.quantile(np.ones(3), 0.5)
    with pytest.raises(ConfigError, match="quantile is 0"):
        SCORE_BINS.quantile(np.ones(SCORE_BINS.size), 0.0)
    for bad in (np.nan, -1.0):
        with pytest.raises(DataError, match="NaN or negative"):
            SCORE_BINS.count(np.array([1.0, bad]))
    with pytest.raises(ConfigError, match="low must be below high"):
        LogBins(2, 2)

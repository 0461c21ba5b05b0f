"""Lower bounds on ε: known answers, soundness on scores that tell nothing or just enough."""

from __future__ import annotations

from itertools import pairwise

import dp_accounting as dp
import numpy as np
import pytest
from scipy.stats import norm

from fedalt.audit.bounds import expected, lower_bounds
from fedalt.audit.clopper_pearson import bounds_at, lower, upper
from fedalt.audit.f_dp import delta_of, epsilon_of, f_dp_bound, mu_of, refutes
from fedalt.audit.guesses import Guesses, guess, read_scores
from fedalt.audit.library import installed, library_bounds
from fedalt.audit.membership import interval, membership
from fedalt.audit.one_run import one_run_bound, p_value
from fedalt.errors import ConfigError

DELTA = 1e-5


def test_a_hundred_right_guesses_of_a_hundred():
    """The known answer of Steinke et al.: q^100 = .05, so ε = log(q/(1−q)) = 3.49."""
    assert one_run_bound([Guesses(100, 100, 100)], 0.0, 0.05) == pytest.approx(3.493, abs=1e-3)


def test_the_bound_is_where_the_p_value_meets_the_significance():
    made = Guesses(1000, 100, 80)
    bound = one_run_bound([made], DELTA, 0.05)
    assert p_value(made, bound, DELTA) <= 0.05 < p_value(made, bound + 1e-6, DELTA)
    grid = [p_value(made, e, DELTA) for e in np.linspace(0.0, 4.0, 50)]
    assert all(a <= b + 1e-12 for a, b in pairwise(grid))


def test_delta_and_more_tests_only_weaken():
    made = Guesses(1000, 400, 280)
    plain = one_run_bound([made], 0.0, 0.05)
    assert one_run_bound([made], 1e-4, 0.05) < plain
    assert one_run_bound([made, Guesses(1000, 10, 5)], 0.0, 0.05) < plain
    assert f_dp_bound([made, Guesses(1000, 10, 5)], DELTA, 0.05) < f_dp_bound([made], DELTA, 0.05)


def test_figures_of_the_published_implementation():
    """Of jax-privacy 2.0.0, on the same guesses: m, r, v, δ and both bounds."""
    for m, r, v, delta, one, f_dp in (
        (1000, 100, 80, 1e-5, 0.955319, 1.402215),
        (1000, 100, 80, 1e-3, 0.0, 0.926587),
        (1000, 400, 280, 1e-5, 0.662792, 1.131808),
        (500, 20, 20, 1e-5, 1.807067, 2.556856),
    ):
        made = [Guesses(m, r, v)]
        assert one_run_bound(made, delta, 0.05) == pytest.approx(one, abs=1e-5)
        assert f_dp_bound(made, delta, 0.05) == pytest.approx(f_dp, abs=1e-5)


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 8.0])
def test_distance_of_gaussians_agrees_with_the_accountant(epsilon: float):
    mu = mu_of(epsilon, DELTA)
    assert 1.0 / mu == pytest.approx(dp.get_sigma_gaussian(epsilon, DELTA), rel=1e-6)
    assert epsilon_of(mu, DELTA) == pytest.approx(epsilon, rel=1e-6)
    assert delta_of(mu, epsilon) == pytest.approx(DELTA, rel=1e-6)


def test_f_dp_does_not_refute_what_is_true():
    """The rate of refutations of the true μ is at most the significance."""
    rng, mu, wrong = np.random.default_rng(3), 1.0, 0
    for _ in range(300):
        member = rng.random(400) < 0.5
        made = guess(rng.standard_normal(400) + mu * member, member)
        wrong += refutes(made[2], mu, 0.05)
    assert wrong <= 0.05 * 300 + 3 * np.sqrt(300 * 0.05 * 0.95)


def test_scores_that_tell_nothing_bound_nothing():
    """At 95 % per method, of 100 trials at most about 5 may show anything at all."""
    rng = np.random.default_rng(0)
    shown = np.zeros(3)
    for _ in range(100):
        found = lower_bounds(rng.random(200), rng.random(200), DELTA, rng=rng)
        shown += [found.one_run > 0, (found.f_dp or 0) > 0, found.clopper_pearson > 0]
    assert (shown <= 12).all()


def test_equal_scores_do_not_tell_by_their_place():
    """Who stands first in the input must not decide who is guessed."""
    found = lower_bounds(np.zeros(500), np.zeros(500), DELTA, rng=1)
    assert found.largest == 0.0


def test_bounds_stay_below_the_truth_and_near_what_was_known():
    for epsilon, least in ((2.0, 0.4), (4.0, 1.2), (8.0, 2.5)):
        found = expected(epsilon, DELTA, 1000, rng=2, trials=5)
        assert found.f_dp is not None
        assert least < found.one_run < found.f_dp < epsilon
        assert found.clopper_pearson < epsilon


def test_clopper_pearson_ends_are_exact():
    """Of no hits in n, the upper end is 1 − α^(1/n); the ends mirror each other."""
    assert upper(np.asarray(0), 30, 0.05) == pytest.approx(1 - 0.05 ** (1 / 30))
    assert upper(np.asarray(30), 30, 0.05) == 1.0
    assert lower(np.asarray(27), 30, 0.05) == pytest.approx(1 - upper(np.asarray(3), 30, 0.05))


def test_clopper_pearson_looks_both_ways():
    """Canaries that only the absence of betrays are found below the threshold."""
    member = np.arange(1000) < 500
    scores = np.where(member, 1.0, (np.arange(1000) % 4 > 0).astype(float))
    above, below = bounds_at(np.asarray([1.0]), scores, member, 0.0, 0.05).ravel()
    # Above, TPR 1 against FPR ¾; below, TNR ¼ against an FNR of none in 500.
    assert above < 0.5 < 3.0 < below


def test_no_delta_has_no_gaussian():
    found = lower_bounds(np.ones(50), np.zeros(50), 0.0)
    assert found.f_dp is None and any("f-DP" in note for note in found.notes)
    assert found.one_run > 2.0


def test_scores_that_are_none_are_refused():
    for bad in (np.asarray([np.nan]), np.zeros((2, 2))):
        with pytest.raises(ConfigError, match="finite"):
            read_scores(bad, np.zeros(2), np.random.default_rng(0))
    with pytest.raises(ConfigError, match="delta"):
        lower_bounds(np.zeros(2), np.zeros(2), 1.5)


@pytest.mark.skipif(not installed(), reason="jax-privacy is not installed")
def test_jax_privacy_agrees_where_it_is_installed():
    rng, mu = np.random.default_rng(5), mu_of(8.0, DELTA)
    inside, outside = rng.standard_normal(500) + mu, rng.standard_normal(500)
    theirs, ours = library_bounds(inside, outside, DELTA), lower_bounds(inside, outside, DELTA)
    assert theirs is not None and theirs.f_dp is not None and ours.f_dp is not None
    assert theirs.one_run == pytest.approx(ours.one_run, abs=0.8)
    assert theirs.f_dp == pytest.approx(ours.f_dp, abs=1.2)
    assert max(theirs.largest, ours.largest) < 8.0


def test_membership_of_gaussians_is_what_the_curve_says():
    """TPR at FPR α of means μ apart is 1 − Φ(Φ⁻¹(1−α) − μ), the area Φ(μ/√2)."""
    rng, mu = np.random.default_rng(7), 2.0
    found = membership(rng.standard_normal(20_000) + mu, rng.standard_normal(20_000))
    for level, rate in found.rates.items():
        assert rate.value == pytest.approx(norm.sf(norm.isf(level) - mu), abs=0.04)
        assert rate.low < rate.value < rate.high
    assert found.area.low < norm.cdf(mu / np.sqrt(2)) < found.area.high
    assert found.allowed == {0.001: 20, 0.01: 200}


def test_membership_counts_no_ties_as_hits():
    found = membership(np.zeros(50), np.zeros(80), "ties")
    assert all(rate.value == 0.0 for rate in found.rates.values())
    assert found.area.value == 0.5 and found.of == "ties"
    with pytest.raises(ConfigError, match="members"):
        membership(np.zeros(0), np.zeros(3))


def test_an_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(11)
    hits = rng.binomial(40, 0.3, 2000)
    ends = [interval(int(count), 40) for count in hits]
    assert np.mean([end.low <= 0.3 <= end.high for end in ends]) >= 0.95

"""Users with several rows: mixtures of Gaussians against quadrature, closed forms and PLD."""

from __future__ import annotations

import math

import dp_accounting as dp
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad  # type: ignore[import-untyped]

from fedalt.errors import ConfigError
from fedalt.privacy.accounting import Accountant, exact_gaussian
from fedalt.privacy.events import gaussian, sampled, user_sampled
from fedalt.privacy.losses import loss_distribution
from fedalt.privacy.rdp_curves import mixture_curve
from fedalt.privacy.tuning import tuning_cost

DELTA = 1e-5
ADD = dp.NeighboringRelation.ADD_OR_REMOVE_ONE


@pytest.mark.parametrize(("rate", "noise"), [(0.01, 1.0), (0.3, 0.5), (0.05, 3.0)])
def test_users_of_one_row_are_records(rate: float, noise: float) -> None:
    orders = [2, 3, 8, 32, 128]
    library = RdpAccountant(np.asarray(orders, float), ADD)
    library.compose(sampled(rate, gaussian(noise)))
    mine = mixture_curve(noise, (0.0, 1.0), (1.0 - rate, rate), orders)
    assert mine == pytest.approx(library._rdp, rel=1e-8)
    user, record = ({step: 50} for step in (user_sampled(rate, 1, noise),
                                            sampled(rate, gaussian(noise))))  # fmt: skip
    found = [Accountant().tight(history, DELTA).epsilon for history in (user, record)]
    assert found[0] == pytest.approx(found[1], rel=1e-6)


@pytest.mark.parametrize(
    ("sensitivities", "chances", "noise", "order"),
    [((0.0, 1.0, 2.0, 3.0), (0.5, 0.3, 0.15, 0.05), 1.0, 2.5),
     ((0.0, 1.0, 2.0, 3.0), (0.5, 0.3, 0.15, 0.05), 1.0, 6.0),
     ((1.0, 2.0), (0.9, 0.1), 2.0, 1.5),
     ((0.0, 0.5), (0.99, 0.01), 0.7, 3.5)],
)  # fmt: skip
def test_a_mixture_s_divergence_is_its_integral(
    sensitivities: tuple[float, ...], chances: tuple[float, ...], noise: float, order: float
) -> None:
    shifts, weights = np.array(sensitivities) / noise, np.array(chances)

    def ratio(x: float) -> float:
        return float(weights @ np.exp(shifts * x - 0.5 * shifts**2))

    def mean(power: float) -> float:
        value, _ = quad(
            lambda x: math.exp(-(x**2) / 2) / math.sqrt(2 * math.pi) * ratio(x) ** power,
            -25.0, 35.0, epsabs=0.0, epsrel=1e-11, limit=1000, points=[0.0, order * shifts.max()],
        )  # fmt: skip
        return float(value)

    expected = math.log(max(mean(order), mean(1.0 - order))) / (order - 1.0)
    found = mixture_curve(noise, sensitivities, chances, [order])[0]
    assert found == pytest.approx(expected, rel=1e-8)


def test_certain_rows_are_a_gaussian() -> None:
    orders = [1.5, 2, 7.5, 64]
    expected = [order * 3.0**2 / (2 * 2.0**2) for order in orders]
    assert mixture_curve(2.0, (3.0,), (1.0,), orders) == pytest.approx(expected, rel=1e-10)
    history = {user_sampled(1.0, 3, 2.0): 100}
    found = Accountant().tight(history, DELTA)
    assert found.method == "gaussian"
    assert found.epsilon == pytest.approx(exact_gaussian(2.0 / 3.0 / 10.0, DELTA))


def test_an_order_that_would_take_too_much_is_left_out() -> None:
    found = mixture_curve(0.001, tuple(range(101)), (0.5, *([0.005] * 100)), [2.0, 1024.0])
    assert math.isinf(found[1])


@pytest.mark.parametrize(("rate", "rows", "noise"), [(0.05, 3, 2.0), (0.3, 2, 1.0)])
def test_losses_are_those_that_the_library_finds_one_by_one(
    rate: float, rows: int, noise: float
) -> None:
    event = user_sampled(rate, rows, noise)
    library = PLDAccountant(ADD, 2e-2)
    library.compose(event, 20)
    mine = loss_distribution(event, ADD, 2e-2).self_compose(20)
    for delta in (1e-2, 1e-5, 1e-8):
        found = mine.get_epsilon_for_delta(delta)
        assert found == pytest.approx(library.get_epsilon(delta), rel=1e-5)


@settings(max_examples=10, deadline=None)
@given(
    rate=st.floats(0.001, 0.9),
    rows=st.integers(1, 5),
    noise=st.floats(0.8, 6.0),
    steps=st.integers(1, 60),
)
def test_users_tight_bound_is_never_above_the_quick_one(
    rate: float, rows: int, noise: float, steps: int
) -> None:
    accountant, history = Accountant(), {user_sampled(rate, rows, noise): steps}
    fast, tight = accountant.fast(history, DELTA), accountant.tight(history, DELTA)
    pld = accountant._composed(history, 1e-3).get_epsilon_for_delta(DELTA)
    assert fast.method == "rdp" and 0.0 <= tight.epsilon <= fast.epsilon
    assert pld <= fast.epsilon * (1 + 1e-9)


def test_more_rows_cost_more_and_all_of_them_most() -> None:
    accountant = Accountant()
    events = [sampled(0.05, gaussian(2.0)), user_sampled(0.05, 3, 2.0), user_sampled(1.0, 3, 2.0)]
    found = [accountant.tight({event: 100}, DELTA).epsilon for event in events]
    assert found == sorted(found) and found[0] < found[1] < found[2]


def test_users_compose_with_others_tune_and_follow_a_running_epsilon() -> None:
    accountant = Accountant("zero_out")
    user, record = user_sampled(0.1, 2, 1.5), sampled(0.1, gaussian(1.5))
    mixed = {user: 20, record: 20, gaussian(5.0): 2}
    found = accountant.tight(mixed, DELTA)
    assert found.epsilon > max(
        accountant.tight({event: count}, DELTA).epsilon for event, count in mixed.items()
    )
    filtered = accountant.tight(mixed, DELTA, adaptive=True)
    assert filtered.method == "rdp" and found.epsilon < filtered.epsilon < 1.5 * found.epsilon
    cost = tuning_cost({user: 20}, 10, DELTA)
    assert cost.one.epsilon < cost.random_stopping.epsilon < cost.naive.epsilon
    with pytest.raises(ConfigError, match="no bound covers"):
        Accountant("replace_one").tight({user: 1}, DELTA)

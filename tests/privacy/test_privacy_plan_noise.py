"""The noise for a wanted ε: one factor, enough for everybody and no more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from privacy_plans import DELTA, client_phase, record_phase, roster

from fedalt.alternation import Phase, Schedule, Selector, cycle, preview_schedule, repeat
from fedalt.alternation.privacy_spec import PrivacySpec
from fedalt.errors import ConfigError
from fedalt.privacy.account import Account, Scope
from fedalt.privacy.charges import charges_of
from fedalt.privacy.entries import Terms
from fedalt.privacy.events import fixed_sample, gaussian
from fedalt.privacy.forecast import forecast
from fedalt.privacy.wanted import noise_factor, scaled

SITES = roster(40, groups=4)


def account(schedule: Schedule | Phase, rounds: int = 4, **terms: Any) -> Account:
    preview = preview_schedule(schedule, 0, SITES, rounds)
    return forecast(Terms(len(SITES), 1, DELTA, **terms), preview).account


def louder(phase: Phase, factor: float) -> Phase:
    assert phase.privacy is not None
    return replace(phase, privacy=replace(phase.privacy, noise=phase.privacy.noise * factor))


@pytest.mark.parametrize("target", [0.8, 3.0])
def test_scaled_noise_reaches_the_target_and_little_less_does_not(target: float) -> None:
    phase = client_phase(noise=1.0)
    wanted = noise_factor(account(repeat(phase)), target, DELTA)

    def reached(factor: float) -> float:
        made = account(repeat(louder(phase, factor)))
        return made.worst(Scope("client"), DELTA, tight=True).epsilon

    assert reached(wanted.factor) == pytest.approx(wanted.bounds["client"].epsilon, abs=1e-3)
    assert wanted.bounds["client"].epsilon <= target < reached(0.98 * wanted.factor)


def test_a_factor_is_enough_for_every_site() -> None:
    # Whoever is costliest at this noise need not be at the wanted one.
    often = client_phase("often", noise=4.0, clients=Selector(where={"group": ("0",)}))
    loud = client_phase("loud", noise=0.6, clients=Selector("poisson", rate=0.05,
                                                            where={"group": ("1",)}))  # fmt: skip
    wanted = noise_factor(account(cycle(often, loud), 40), 1.0, DELTA)
    made = account(cycle(louder(often, wanted.factor), louder(loud, wanted.factor)), 40)
    assert made.worst(Scope("client"), DELTA, tight=True).epsilon <= 1.0 + 1e-6


SPECS = {
    "poisson": client_phase(noise=1.3),
    "everyone": client_phase(noise=1.3, clients=Selector()),
    "records": record_phase(noise=1.3),
    "users": Phase("users", privacy=PrivacySpec(unit="user", noise=1.3, contributions=3)),
}


@pytest.mark.parametrize("name", SPECS)
def test_a_scaled_event_is_the_event_of_scaled_noise(name: str) -> None:
    phase, cohort = SPECS[name], list(SITES)
    before = charges_of(phase, cohort, SITES)
    after = charges_of(louder(phase, 2.0), cohort, SITES)
    assert [scaled(charge.event, 2.0) for charge in before] == [charge.event for charge in after]


def test_a_fixed_sample_scales_too() -> None:
    event = fixed_sample(5, 20, gaussian(1.3))
    assert scaled(event, 0.5) == fixed_sample(5, 20, gaussian(0.65))


def test_no_noise_reaches_a_target_past_an_open_release() -> None:
    with pytest.raises(ConfigError, match="released that no mechanism protects"):
        noise_factor(account(cycle(client_phase(), Phase("open"))), 1.0, DELTA)
    with pytest.raises(ConfigError, match="must be a number above 0"):
        noise_factor(account(repeat(client_phase())), -1.0, DELTA)

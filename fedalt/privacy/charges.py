"""What one phase of one round costs whom: the one rule for plans, budgets, ledgers and reports.

It follows from the phase and its cohort alone, so what a plan foresees is what a run is charged.

    client, central, Poisson    every eligible site:  Poisson(rate) of Gaussian(z)
    client, any other draw      the sites drawn:      Gaussian(z), no amplification
    record, user, gradients     the sites drawn:      T steps of Poisson(q) of Gaussian(z)
    record, any other kernel    the sites drawn:      Gaussian(z)
    no spec                     the sites drawn:      unprotected (ε = ∞)

Poisson draws of clients are secret (see ``fedalt.privacy.noise``); every other draw follows from
the public seed, so that whoever is drawn is known and nothing is gained by the draw, under any
neighbouring relation. With bounds
a block (``clips``) each block alone costs Gaussian(z), and the blocks of a phase together
1/z² = Σ (C_b/σ_b)², which is B/z² for B of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import dp_accounting as dp
import numpy as np

from fedalt.alternation.block import ALL
from fedalt.alternation.phase import Phase, with_inner
from fedalt.alternation.privacy_spec import UNITS, PrivacySpec
from fedalt.alternation.roster import Roster
from fedalt.alternation.site import Site
from fedalt.errors import ConfigError
from fedalt.privacy.events import (
    EVERYTHING,
    gaussian,
    sampled,
    times,
    user_sampled,
)
from fedalt.privacy.sampling import row_sample, rows_shown
from fedalt.privacy.stages import GRADIENT, leaves


@dataclass(frozen=True)
class Draw:
    """How units came to take part: kind of draw, its probability q, and m of N."""

    kind: str
    rate: float = 1.0
    size: int = 0
    population: int = 0


@dataclass(frozen=True)
class Charge:
    """What a group of sites is charged alike: each site's client, or each of its records.

    ``unit`` is the one that the mechanism protects, empty where nothing does. ``event`` is the
    phase's cost, ``alone`` that of single blocks where they cost less than all together.
    """

    unit: str
    sites: np.ndarray
    blocks: tuple[str, ...]
    modality: str
    task: str
    event: dp.DpEvent
    draw: Draw
    steps: int = 1
    alone: Mapping[str, dp.DpEvent] = field(default_factory=dict)

    def covers(self, unit: str) -> bool:
        """Say whether the mechanism protects a unit: a client's covers users and records."""
        return self.unit in UNITS and UNITS.index(self.unit) >= UNITS.index(unit)

    def of_block(self, block: str) -> dp.DpEvent:
        """Return what one block alone costs."""
        return self.alone.get(block, self.event)


def charges_of(
    phase: Phase, cohort: Sequence[Site], roster: Roster, noise: float | None = None
) -> list[Charge]:
    """Return what a phase of a round costs; ``noise`` is the multiplier that was really there.

    Raises :class:`fedalt.errors.ConfigError` where a site's rows make no sample.
    """
    charges = []
    if any(leaf.privacy and leaf.privacy.metrics == "release" for leaf in leaves(phase)):
        charges.append(unprotected(phase, cohort, ("metrics",)))
    if phase.privacy is not None and phase.privacy.unit == "client":
        return [_of_clients(phase, phase.privacy, cohort, roster, noise), *charges]
    for leaf in leaves(phase):
        if phase.inner and leaf.privacy is not None:
            _check_inner(phase, leaf, leaf.privacy)
        if leaf.privacy is None or leaf.privacy.unit == "client":
            charges.append(unprotected(leaf, cohort))
        else:
            charges += _of_rows(leaf, leaf.privacy, cohort)
    return charges


def unprotected(phase: Phase, cohort: Sequence[Site], blocks: tuple[str, ...] = ()) -> Charge:
    """Return the charge of a release that no mechanism protects."""
    return _charge(phase, "", _indices(cohort), EVERYTHING, Draw("none"), blocks=blocks)


def _check_inner(phase: Phase, leaf: Phase, spec: PrivacySpec) -> None:
    """See that what an inner phase costs follows from itself."""
    if leaf.kernel != phase.kernel:
        raise ConfigError(
            f"phase '{leaf.name}': its kernel '{leaf.kernel}' does not run inside phase "
            f"'{phase.name}', whose kernel '{phase.kernel}' does all of the work"
        )
    outer = [item for item in with_inner([phase]) if item.inner]
    narrowed = any(item.view.fraction < 1.0 for item in outer)
    if leaf.kernel == GRADIENT and narrowed and not spec.sample_rate:
        raise ConfigError(
            f"phase '{leaf.name}': it draws from a view within a view, so how likely a row is "
            "does not follow from its batch size; give privacy.sample_rate"
        )


def _of_clients(
    phase: Phase,
    spec: PrivacySpec,
    cohort: Sequence[Site],
    roster: Roster,
    noise: float | None,
) -> Charge:
    if spec.mechanism == "banded" and phase.clients.mode == "poisson":
        raise ConfigError(
            f"phase '{phase.name}': noise over bands hides clients that take turns of known "
            "length, and a Poisson draw may take one again at once; let a cycle of phases with "
            "clients.where, or clients of mode 'all', say whose turn it is"
        )
    alone, selector = spec.noise if noise is None else noise, phase.clients
    joint = alone
    if spec.clips and noise is None:
        joint = alone / math.sqrt(len(spec.clips))
    sites, draw = _indices(cohort), Draw("none", size=len(cohort), population=len(cohort))
    if spec.trust == "central" and selector.mode == "poisson":
        sites = np.asarray(roster.places(selector))
        draw = Draw("poisson", selector.rate, len(cohort), len(sites))
    elif spec.trust == "central" and selector.mode in ("fixed", "fraction"):
        eligible = roster.places(selector)
        draw = Draw("fixed", len(cohort) / len(eligible), len(cohort), len(eligible))

    def event(multiplier: float) -> dp.DpEvent:
        rate = draw.rate if draw.kind == "poisson" else 1.0
        return sampled(rate, gaussian(multiplier))

    blocks = phase.train or (ALL,)
    single = {block: event(alone) for block in spec.clips} if joint != alone else {}
    return _charge(phase, "client", sites, event(joint), draw, blocks=blocks, alone=single)


def _of_rows(phase: Phase, spec: PrivacySpec, cohort: Sequence[Site]) -> list[Charge]:
    """Return a charge for the sites of each size, whose records cost alike."""
    if phase.kernel != GRADIENT:
        cost = gaussian(spec.noise / spec.contributions)
        draw = Draw("none", size=len(cohort), population=len(cohort))
        return [_charge(phase, spec.unit, _indices(cohort), cost, draw)]
    by_size: dict[int, list[Site]] = {}
    for site in cohort:
        by_size.setdefault(0 if spec.sample_rate else site.size, []).append(site)
    charges = []
    for size, sites in by_size.items():
        rows = 1 if spec.sample_rate else rows_shown(size, phase.view.fraction)
        sample = row_sample(phase, rows)
        step = sampled(sample.rate, gaussian(spec.noise))
        if spec.unit == "user":
            step = user_sampled(sample.rate, spec.contributions, spec.noise)
        draw = Draw("poisson", sample.rate, phase.batch_size, size)
        event = times(step, sample.steps)
        charges.append(_charge(phase, spec.unit, _indices(sites), event, draw, steps=sample.steps))
    return charges


def _charge(
    phase: Phase,
    unit: str,
    sites: np.ndarray,
    event: dp.DpEvent,
    draw: Draw,
    steps: int = 1,
    blocks: tuple[str, ...] = (),
    alone: Mapping[str, dp.DpEvent] | None = None,
) -> Charge:
    named = blocks or phase.train or (ALL,)
    return Charge(
        unit, sites, named, phase.modality, phase.task, event, draw, steps, dict(alone or {})
    )


def _indices(cohort: Sequence[Site]) -> np.ndarray:
    return np.fromiter((site.index for site in cohort), np.int64, len(cohort))

"""Lower bounds on ε from the scores of canaries, by three methods.

Each holds with the confidence asked for on its own: ``one_run`` for whatever mechanism, ``f_dp``
where the noise is Gaussian, ``clopper_pearson`` where canaries are independent. A bound above a
claimed ε refutes the claim; one below it confirms nothing, so :func:`expected` says what a
mechanism that just keeps its claim would be bounded by.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedalt.audit.clopper_pearson import clopper_pearson_bound
from fedalt.audit.f_dp import f_dp_bound, mu_of
from fedalt.audit.guesses import guess, read_scores
from fedalt.audit.one_run import one_run_bound
from fedalt.errors import ConfigError

TRIALS = 9
NO_DELTA = "f-DP is missing: a Gaussian has an ε only at δ above 0"


@dataclass(frozen=True)
class LowerBounds:
    """Lower bounds on ε at δ, each by its own method, from so many canaries."""

    one_run: float
    f_dp: float | None
    clopper_pearson: float
    canaries: int
    notes: tuple[str, ...] = ()

    @property
    def largest(self) -> float:
        """The largest of the bounds."""
        return max(self.one_run, self.f_dp or 0.0, self.clopper_pearson)


def lower_bounds(
    scores_in: np.ndarray,
    scores_out: np.ndarray,
    delta: float,
    significance: float = 0.05,
    rng: np.random.Generator | int = 0,
) -> LowerBounds:
    """Return bounds from scores (k,) of canaries that were in and (m−k,) of those that were out.

    Higher scores speak for a canary's being in. ``rng`` breaks ties and splits the canaries.
    Raises :class:`ConfigError` for scores that are no vectors of finite numbers, and for a δ or
    significance that is none.
    """
    if not 0.0 <= delta < 1.0 or not 0.0 < significance < 0.5:
        raise ConfigError(
            f"audit: delta={delta:g} must lie in [0, 1) and significance={significance:g} in "
            "(0, 0.5)"
        )
    generator = rng if isinstance(rng, np.random.Generator) else np.random.default_rng(rng)
    scores, member = read_scores(scores_in, scores_out, generator)
    guesses = guess(scores, member)
    return LowerBounds(
        one_run=one_run_bound(guesses, delta, significance),
        f_dp=f_dp_bound(guesses, delta, significance) if delta else None,
        clopper_pearson=clopper_pearson_bound(scores, member, delta, significance, generator),
        canaries=len(scores),
        notes=() if delta else (NO_DELTA,),
    )


def expected(
    epsilon: float,
    delta: float,
    canaries: int,
    rng: np.random.Generator | int = 0,
    significance: float = 0.05,
    trials: int = TRIALS,
) -> LowerBounds:
    """Return the median bounds of Gaussian noise that is exactly (ε, δ)-private.

    Its scores are unit Gaussians whose means lie μ(ε, δ) apart, as of canaries that do not meet
    each other: no audit with so many canaries can be expected to show more.
    """
    generator = rng if isinstance(rng, np.random.Generator) else np.random.default_rng(rng)
    mu = mu_of(epsilon, delta)
    found = []
    for _ in range(trials):
        member = generator.random(canaries) < 0.5
        scores = generator.standard_normal(canaries) + mu * member
        found.append(lower_bounds(scores[member], scores[~member], delta, significance, generator))
    return LowerBounds(
        one_run=float(np.median([bounds.one_run for bounds in found])),
        f_dp=float(np.median([bounds.f_dp or 0.0 for bounds in found])) if delta else None,
        clopper_pearson=float(np.median([bounds.clopper_pearson for bounds in found])),
        canaries=canaries,
        notes=found[0].notes if found else (),
    )

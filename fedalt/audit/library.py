"""The same bounds by jax-privacy, where it is installed: a second opinion, by another's code.

Its ``CanaryScoreAuditor`` guesses members only and corrects for every threshold, so its bounds
differ somewhat from this package's. Its estimate from a Gaussian fit is not used: it is no bound.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec

import numpy as np

from fedalt.audit.bounds import LowerBounds

INSTALL = "pip install 'fedalt[audit]'"
MISSING = f"no second opinion: jax-privacy is not installed; to have it: {INSTALL}"


def installed() -> bool:
    """Say whether jax-privacy is there."""
    return find_spec("jax_privacy") is not None


def library_bounds(
    scores_in: np.ndarray, scores_out: np.ndarray, delta: float, significance: float = 0.05
) -> LowerBounds | None:
    """Return jax-privacy's bounds, or None where it is not installed; ``delta`` is above 0."""
    if not installed():
        return None
    auditing = importlib.import_module("jax_privacy.auditing")
    auditor = auditing.CanaryScoreAuditor(scores_in, scores_out)
    return LowerBounds(
        one_run=float(auditor.epsilon_one_run(significance, delta)),
        f_dp=float(auditor.epsilon_one_run_fdp(significance, delta)),
        clopper_pearson=float(
            auditor.epsilon_clopper_pearson(significance, delta, one_sided=False)
        ),
        canaries=len(scores_in) + len(scores_out),
    )

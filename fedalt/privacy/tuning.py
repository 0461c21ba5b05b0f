"""What it costs to try several settings and keep the best run.

Keeping the best of n private runs tells something about all of them: n times the cost, if their
number is fixed. If their number is drawn at random, and nothing of the others is told, it costs
two to three times one run's (Papernot and Steinke 2022, "Hyperparameter tuning with Rényi
differential privacy", Theorem 2: a truncated negative binomial number of runs).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedalt.errors import ConfigError
from fedalt.privacy.accounting import ORDERS, Accountant, Bound, History

SHAPE = 1.0
"""A geometric number of runs."""


@dataclass(frozen=True)
class TuningCost:
    """The ε of one run, of a fixed number of them, and of as many on average drawn at random."""

    one: Bound
    naive: Bound
    random_stopping: Bound


def tuning_cost(
    history: History, runs: int, delta: float, relation: str = "add_remove"
) -> TuningCost:
    """Return what the best of ``runs`` runs of a history costs, each way.

    Raises :class:`ConfigError` for fewer than two runs, and for events without a Rényi curve.
    """
    if runs < 2:
        raise ConfigError(f"tuning over {runs} runs: at least 2 make a choice")
    accountant = Accountant(relation)
    one = accountant.tight(history, delta)
    naive = accountant.tight({event: runs * count for event, count in history.items()}, delta)
    return TuningCost(one, naive, _random_stopping(accountant, history, runs, delta))


def _random_stopping(accountant: Accountant, history: History, runs: int, delta: float) -> Bound:
    from dp_accounting.rdp import rdp_privacy_accountant as rdp

    curve = accountant.rdp_curve(history)
    if curve is None:
        raise ConfigError(
            f"tuning: no Rényi curve under '{accountant.relation}', which its cost rests on"
        )
    orders = np.asarray(ORDERS, float)
    # The curve of the choice follows from that of one run, order by order.
    total = rdp._compute_rdp_repeat_and_select(orders, curve, runs, SHAPE)
    epsilon, _ = rdp.compute_epsilon(orders, total, delta)
    return Bound(max(0.0, float(epsilon)), "rdp")

"""What an ε means, in a line: by how much seeing everything can move a guess about one unit.

Under (ε, δ)-differential privacy an even guess about whether a unit was there becomes at most
e^ε/(1+e^ε) sure, except with probability δ (Kairouz, Oh and Viswanath 2015, "The composition
theorem for differential privacy").
"""

from __future__ import annotations

import math

from fedalt.privacy.accounting import Bound

NOBODY = "protects nobody: something was released without a mechanism for it"
OF = {
    "record": "one record of a site",
    "user": "one person of a site, with all records",
    "client": "one client with everything it holds",
}


def meaning(unit: str, bound: Bound, delta: float) -> str:
    """Say in one line what an ε of a unit promises."""
    if math.isinf(bound.epsilon):
        return f"ε of a {unit} is infinite: {NOBODY}"
    sure = 1.0 / (1.0 + math.exp(-bound.epsilon))
    # Rounded upwards: 100 % stands for certainty alone.
    percent = min(math.ceil(1000 * sure) / 10, 99.9 if sure < 0.999 else 100.0)
    return (
        f"ε of a {unit} is {bound.epsilon:.4g}: whoever sees everything that is released, and "
        f"held it for even whether {OF[unit]} took part, is at most {percent:g} % sure "
        f"afterwards (but for a probability of {delta:.2g})"
    )

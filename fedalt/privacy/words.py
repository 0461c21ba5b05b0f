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
    # Rounded upwards; 100 % would read as certainty, and says nothing about how near it is.
    percent = math.ceil(1000 * sure) / 10
    most = f"at most {percent:g} %" if percent < 100 else "perhaps more than 99.9 %"
    return (
        f"ε of a {unit} is {bound.epsilon:.4g}: whoever sees everything that is released, and "
        f"held it for even whether {OF[unit]} took part, is {most} sure "
        f"afterwards (but for a probability of {delta:.2g})"
    )

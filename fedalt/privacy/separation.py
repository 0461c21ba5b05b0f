"""How far apart a client's turns are: what correlated noise rests on.

Noise correlated over b rounds hides a client that takes part at most once in any b successive
rounds of its phase (see ``fedalt.privacy.banded``). A round that is done again after a crash is
the same turn.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from fedalt.errors import BudgetError


@dataclass
class Separation:
    """The turns of one phase: its rounds so far, and when each site came last."""

    phase: str
    bands: int
    _turn: int = 0
    _round: int = 0
    _last: dict[int, int] = field(default_factory=dict)

    def enter(self, round_number: int, sites: Iterable[int]) -> None:
        """Note a round; raises :class:`BudgetError` for a site that comes again too soon."""
        turn = self._turn if round_number == self._round else self._turn + 1
        for site in sites:
            since = turn - self._last.get(site, -self.bands)
            if 0 < since < self.bands:
                raise BudgetError(
                    f"round {round_number}, phase '{self.phase}': site {site} would take part "
                    f"again after {since} of the phase's rounds, but noise over {self.bands} bands "
                    f"hides it only every {self.bands}; let sites take longer turns, or lower "
                    "privacy.bands"
                )
        self._turn, self._round = turn, round_number
        self._last.update(dict.fromkeys(sites, turn))

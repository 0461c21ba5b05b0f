"""The account of a federation: what every site has been charged, and the ε that this makes.

Most sites have the same history, so a site holds the number of a profile, and a profile is a
history: how often which event, by cell (unit, blocks, modality, task). Disjoint people are never
added up: an ε of the whole is the largest over sites, and over the values of an attribute that
is ``disjoint`` (one person, one value, fixed before any data were seen). Everything that touches
one person is composed, whatever its block, modality or task.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import dp_accounting as dp
import numpy as np

from fedalt.privacy.accounting import Accountant, Bound
from fedalt.privacy.charges import Charge
from fedalt.privacy.events import EVERYTHING, inside

EMPTY = 0
"""The profile of a site that has never been touched."""
DISJOINT = ("", "modality", "task")


@dataclass(frozen=True)
class Cell:
    """Where charges add up: what protects, for which blocks, modality and task."""

    unit: str
    blocks: tuple[str, ...]
    modality: str
    task: str
    event: dp.DpEvent
    alone: tuple[tuple[str, dp.DpEvent], ...] = ()

    @classmethod
    def of(cls, charge: Charge) -> Cell:
        """Return the cell that a charge belongs to."""
        alone = tuple(sorted(charge.alone.items(), key=lambda pair: pair[0]))
        return cls(charge.unit, charge.blocks, charge.modality, charge.task, charge.event, alone)


Profile = frozenset[tuple[Cell, int]]


@dataclass(frozen=True)
class Scope:
    """Whose ε is asked for: a unit, and of one block, modality or task where these are given."""

    unit: str
    block: str = ""
    modality: str = ""
    task: str = ""


@dataclass
class Account:
    """What the sites of a federation have been charged.

    ``relation`` is the neighbouring relation of all of it; ``adaptive`` says that parameters
    were chosen from a running ε, which only the RDP bound then covers.
    """

    sites: int
    relation: str = "add_remove"
    disjoint: str = ""
    adaptive: bool = False
    accountant: Accountant = field(init=False)
    _profiles: list[Profile] = field(default_factory=lambda: [frozenset()])
    _numbers: dict[Profile, int] = field(default_factory=lambda: {frozenset(): EMPTY})
    _of: np.ndarray = field(init=False)
    _known: dict[tuple[int, Scope, float, bool], Bound] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.accountant = Accountant(self.relation)
        self._of = np.zeros(self.sites, np.int64)

    def add(self, charges: Iterable[Charge], times: int = 1) -> None:
        """Charge sites; ``times`` −1 takes back what was charged before."""
        for charge in charges:
            self._of[charge.sites] = self._moved(self._of[charge.sites], Cell.of(charge), times)

    def with_(self, charges: Iterable[Charge]) -> np.ndarray:
        """Return the profile numbers (sites,) that charges would lead to; nothing is charged."""
        of = self._of.copy()
        for charge in charges:
            of[charge.sites] = self._moved(of[charge.sites], Cell.of(charge), 1)
        return of

    def _moved(self, profiles: np.ndarray, cell: Cell, times: int) -> np.ndarray:
        found, inverse = np.unique(profiles, return_inverse=True)
        moved = [self._number(self._profiles[number], cell, times) for number in found.tolist()]
        return np.asarray(moved, np.int64)[inverse]

    def _number(self, profile: Profile, cell: Cell, times: int) -> int:
        counts = dict(profile)
        counts[cell] = counts.get(cell, 0) + times
        if counts[cell] <= 0:
            del counts[cell]
        new = frozenset(counts.items())
        if new not in self._numbers:
            self._numbers[new] = len(self._profiles)
            self._profiles.append(new)
        return self._numbers[new]

    @property
    def profiles(self) -> np.ndarray:
        """The profile number of each site (sites,)."""
        return self._of

    def units(self) -> tuple[str, ...]:
        """Return the units that some mechanism has protected, in the order of the specs."""
        live = {cell.unit for number in np.unique(self._of).tolist()
                for cell, _ in self._profiles[number]}  # fmt: skip
        return tuple(unit for unit in ("record", "user", "client") if unit in live)

    def cells(self) -> list[Cell]:
        """Return the cells that some site has been charged in."""
        found: dict[Cell, None] = {}
        for number in np.unique(self._of).tolist():
            found.update(dict.fromkeys(cell for cell, _ in self._profiles[number]))
        return list(found)

    def histories(self, profile: int, scope: Scope) -> list[dict[dp.DpEvent, int]]:
        """Return what a scope's ε is the largest of: one history a disjoint group of people."""
        rows = [(cell, n) for cell, n in self._profiles[profile] if _within(cell, scope)]
        # A client that works for two of them is one client.
        if not self.disjoint or scope.unit == "client":
            return [_composed(rows, scope)]
        values = {getattr(cell, self.disjoint) for cell, _ in rows}
        # Work without a value touches everyone.
        groups = [value for value in values if value] or [""]
        return [
            _composed([(c, n) for c, n in rows if getattr(c, self.disjoint) in ("", group)], scope)
            for group in groups
        ]

    def bound(self, profile: int, scope: Scope, delta: float, tight: bool = False) -> Bound:
        """Return the ε of a profile at δ; quickly, or the smallest of all sound bounds."""
        key = (profile, scope, delta, tight)
        if key not in self._known:
            found = [self._bound(h, delta, tight) for h in self.histories(profile, scope)]
            self._known[key] = max(found, key=lambda bound: bound.epsilon)
        return self._known[key]

    def _bound(self, history: Mapping[dp.DpEvent, int], delta: float, tight: bool) -> Bound:
        if tight:
            return self.accountant.tight(history, delta, self.adaptive)
        return self.accountant.fast(history, delta)

    def worst(
        self,
        scope: Scope,
        delta: float,
        tight: bool = False,
        profiles: np.ndarray | None = None,
    ) -> Bound:
        """Return the largest ε over sites; ``profiles`` are others' than those charged."""
        live = np.unique(self._of if profiles is None else profiles).tolist()
        found = [self.bound(number, scope, delta) for number in live]
        largest = max(found, key=lambda bound: bound.epsilon, default=Bound(0.0, "none"))
        if not tight:
            return largest
        # A profile's tight bound is at most its quick one, so few have to be looked at.
        best = Bound(-1.0, "none")
        order = sorted(zip(live, found, strict=True), key=lambda pair: -pair[1].epsilon)
        for number, quick in order:
            if quick.epsilon <= best.epsilon:
                break
            exact = self.bound(number, scope, delta, tight=True)
            best = max(best, exact, key=lambda bound: bound.epsilon)
        return best if order else Bound(0.0, "none")

    def each(self, scope: Scope, delta: float, tight: bool = False) -> np.ndarray:
        """Return every site's ε (sites,)."""
        found, inverse = np.unique(self._of, return_inverse=True)
        values = [self.bound(number, scope, delta, tight).epsilon for number in found.tolist()]
        return np.asarray(values)[inverse]


def _within(cell: Cell, scope: Scope) -> bool:
    if scope.block and scope.block not in cell.blocks and "all" not in cell.blocks:
        return False
    if scope.modality and cell.modality not in ("", scope.modality):
        return False
    return not scope.task or cell.task in ("", scope.task)


def _composed(rows: Iterable[tuple[Cell, int]], scope: Scope) -> dict[dp.DpEvent, int]:
    """Compose cells into a history; where the mechanism protects less, nothing is protected."""
    order = ("record", "user", "client")
    history: dict[dp.DpEvent, int] = {}
    for cell, count in rows:
        protected = cell.unit in order and order.index(cell.unit) >= order.index(scope.unit)
        event = dict(cell.alone).get(scope.block, cell.event) if protected else EVERYTHING
        if protected and cell.unit == "client" != scope.unit:
            event = inside(event)
        history[event] = history.get(event, 0) + count
    return history

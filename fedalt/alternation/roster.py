"""The roster: a federation's sites in index order, and who of them fits which test.

A schedule draws a cohort every round from the same sites. Here what a selector's tests found
is remembered, so that a round costs as much as its cohort and not as much as the federation,
and a :class:`Site` of a lazy sequence is made when it is first drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, overload

import numpy as np

if TYPE_CHECKING:
    from fedalt.alternation.site import Selector, Site

Places = range | np.ndarray
"""Positions in the roster, ascending."""

_Key = tuple[object, ...]


class Roster(Sequence["Site"]):
    """Sites in index order.

    A list may come in any order. Any other sequence is taken to be ordered by index, as a
    task's sites are, and is not walked through: it may make its sites when asked for one.
    """

    def __init__(self, sites: Sequence[Site]) -> None:
        if isinstance(sites, list | tuple):
            sites = tuple(sites)
            if any(one.index > other.index for one, other in pairwise(sites)):
                sites = tuple(sorted(sites, key=attrgetter("index")))
        self._sites = sites
        self._made: dict[int, Site] = {}
        self._places: dict[_Key, Places] = {}
        self._members: dict[_Key, tuple[Site, ...]] = {}

    @classmethod
    def of(cls, sites: Sequence[Site]) -> Roster:
        """Return ``sites`` as a roster; one that is a roster already keeps what it knows."""
        return sites if isinstance(sites, cls) else cls(sites)

    def __len__(self) -> int:
        return len(self._sites)

    @overload
    def __getitem__(self, place: int) -> Site: ...
    @overload
    def __getitem__(self, place: slice) -> list[Site]: ...
    def __getitem__(self, place: int | slice) -> Site | list[Site]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        if isinstance(self._sites, tuple):
            known: Site = self._sites[place]
            return known
        # Rounds and previews that hold the same site then hold one object.
        if place not in self._made:
            self._made[place] = self._sites[place]
        return self._made[place]

    def places(self, selector: Selector) -> Places:
        """Return the positions of the sites that pass the selector's tests."""
        if not selector.where and not selector.unless:
            return range(len(self))
        key = _key(selector)
        if key not in self._places:
            found = (i for i, site in enumerate(self._sites) if selector.fits(site))
            self._places[key] = np.fromiter(found, np.int64)
        return self._places[key]

    def members(self, selector: Selector) -> tuple[Site, ...]:
        """Return the sites that pass the selector's tests; asked again, the same tuple."""
        key = _key(selector)
        if key not in self._members:
            self._members[key] = tuple(self[int(i)] for i in self.places(selector))
        return self._members[key]


def _key(selector: Selector) -> _Key:
    return (_frozen(selector.where), *map(_frozen, selector.unless))


def _frozen(where: Mapping[str, Sequence[str]]) -> _Key:
    return tuple((key, tuple(values)) for key, values in sorted(where.items()))

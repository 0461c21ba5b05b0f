"""Sites and selectors: who there is, and who takes part in a phase."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fedalt.alternation.roster import Roster
from fedalt.errors import ScheduleError, nearest

Where = Mapping[str, tuple[str, ...]]
MODES = ("all", "fixed", "fraction", "poisson")


@dataclass(frozen=True, slots=True)
class Site:
    """What the server knows of a client.

    ``index`` is its place in the federation (0 … N−1), stable over restarts and engines;
    ``size`` its number of training records; ``attributes`` free text such as modality or tag.
    """

    index: int
    name: str
    size: int
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Selector:
    """Who takes part: the sites that fit ``where`` and none of ``unless``, then a draw.

    A site fits a mapping if every key's attribute has one of the allowed values.

    ``mode`` is ``all``; ``fixed`` (``count`` sites without replacement); ``fraction``
    (``⌈rate·N⌉`` sites without replacement); or ``poisson`` (each with probability ``rate``
    on its own, as privacy amplification by subsampling assumes; the draw may be empty).
    """

    mode: str = "all"
    count: int = 0
    rate: float = 1.0
    where: Where = field(default_factory=dict)
    unless: tuple[Where, ...] = ()

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ScheduleError(
                f"unknown client selection '{self.mode}'{nearest(self.mode, MODES)}"
            )
        if self.mode == "fixed" and self.count < 1:
            raise ScheduleError(f"clients.count is {self.count}, but 'fixed' needs at least 1")
        if self.mode in ("fraction", "poisson") and not 0.0 < self.rate <= 1.0:
            raise ScheduleError(f"clients.rate is {self.rate}, but must lie in (0, 1]")

    def fits(self, site: Site) -> bool:
        """Say whether a site passes the tests of ``where`` and ``unless``."""
        return _fits(site, self.where) and not any(_fits(site, test) for test in self.unless)

    def eligible(self, sites: Sequence[Site]) -> list[Site]:
        """Return the sites whose attributes fit, in index order."""
        return list(Roster.of(sites).members(self))

    def narrowed(self, where: Where) -> Selector:
        """Return a selector of those who also fit ``where``.

        Raises :class:`ScheduleError` if the two tests exclude each other.
        """
        both = dict(self.where)
        for key, allowed in where.items():
            both[key] = tuple(v for v in both.get(key, allowed) if v in allowed)
            if not both[key]:
                raise ScheduleError(
                    f"clients.where: {key} in {list(self.where[key])} and in {list(allowed)} "
                    "leaves no site"
                )
        return replace(self, where=both)

    def excluding(self, where: Where) -> Selector:
        """Return a selector of those who do not fit ``where``."""
        return replace(self, unless=(*self.unless, where))

    def draw(self, sites: Sequence[Site], rng: np.random.Generator) -> Sequence[Site]:
        """Draw this round's cohort, in index order.

        From a :class:`~fedalt.alternation.roster.Roster` a draw costs as much as its cohort.
        Raises :class:`ScheduleError` if no site fits or fewer than ``count`` do.
        """
        roster = Roster.of(sites)
        pool = roster.places(self)
        if not len(pool):
            asked = ", ".join(f"{k} in {list(v)}" for k, v in self.where.items()) or "any site"
            raise ScheduleError(f"no site fits the selector ({asked}) among {len(sites)} sites")
        if self.mode == "all":
            return roster.members(self)
        return [roster[int(pool[i])] for i in self._chosen(len(pool), rng)]

    def _chosen(self, fitting: int, rng: np.random.Generator) -> np.ndarray:
        """Draw positions among the sites that fit, ascending."""
        if self.mode == "poisson":
            return np.flatnonzero(rng.random(fitting) < self.rate)
        # 0.07·100 is 7.000000000000001 in floating point and still means 7 sites.
        share = max(1, math.ceil(self.rate * fitting - 1e-9))
        size = self.count if self.mode == "fixed" else share
        if size > fitting:
            raise ScheduleError(f"clients.count is {size}, but only {fitting} sites fit")
        return np.sort(rng.choice(fitting, size=size, replace=False))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that :meth:`from_dict` reads."""
        return {
            "mode": self.mode,
            "count": self.count,
            "rate": self.rate,
            "where": _plain(self.where),
            "unless": [_plain(test) for test in self.unless],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Selector:
        """Read plain data; values of ``where`` and ``unless`` may be one text or a list."""
        known = {"mode", "count", "rate", "where", "unless"}
        for key in data:
            if key not in known:
                raise ScheduleError(f"clients: unknown key '{key}'{nearest(key, known)}")
        unless = data.get("unless") or []
        return cls(
            mode=str(data.get("mode", "all")),
            count=int(data.get("count", 0)),
            rate=float(data.get("rate", 1.0)),
            where=_where(data.get("where") or {}),
            unless=tuple(_where(t) for t in ([unless] if isinstance(unless, Mapping) else unless)),
        )


def _fits(site: Site, where: Where) -> bool:
    return all(site.attributes.get(key, "") in allowed for key, allowed in where.items())


def _plain(where: Where) -> dict[str, list[str]]:
    return {key: list(values) for key, values in where.items()}


def _where(data: Mapping[str, Any]) -> Where:
    return {
        str(key): tuple(map(str, value)) if isinstance(value, list | tuple) else (str(value),)
        for key, value in data.items()
    }

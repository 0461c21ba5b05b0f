"""Sites and selectors: who there is, and who takes part in a phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedalt.errors import ScheduleError, nearest

MODES = ("all", "fixed", "fraction", "poisson")


@dataclass(frozen=True)
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
    """Who takes part: the sites whose attributes fit ``where``, then a draw.

    ``mode`` is ``all``; ``fixed`` (``count`` sites without replacement); ``fraction``
    (``⌈rate·N⌉`` sites without replacement); or ``poisson`` (each with probability ``rate``
    on its own, as privacy amplification by subsampling assumes; the draw may be empty).
    """

    mode: str = "all"
    count: int = 0
    rate: float = 1.0
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ScheduleError(f"unknown client selection '{self.mode}'{nearest(self.mode, MODES)}")
        if self.mode == "fixed" and self.count < 1:
            raise ScheduleError(f"clients.count is {self.count}, but 'fixed' needs at least 1")
        if self.mode in ("fraction", "poisson") and not 0.0 < self.rate <= 1.0:
            raise ScheduleError(f"clients.rate is {self.rate}, but must lie in (0, 1]")

    def eligible(self, sites: Sequence[Site]) -> list[Site]:
        """Return the sites whose attributes fit, in index order."""
        return [
            site
            for site in sorted(sites, key=lambda s: s.index)
            if all(site.attributes.get(key, "") in allowed for key, allowed in self.where.items())
        ]

    def draw(self, sites: Sequence[Site], rng: np.random.Generator) -> list[Site]:
        """Draw this round's cohort, in index order.

        Raises :class:`ScheduleError` if no site fits or fewer than ``count`` do.
        """
        pool = self.eligible(sites)
        if not pool:
            asked = ", ".join(f"{k} in {list(v)}" for k, v in self.where.items()) or "any site"
            raise ScheduleError(f"no site fits the selector ({asked}) among {len(sites)} sites")
        if self.mode == "all":
            return pool
        if self.mode == "poisson":
            return [s for s, u in zip(pool, rng.random(len(pool)), strict=True) if u < self.rate]
        size = self.count if self.mode == "fixed" else int(np.ceil(self.rate * len(pool)))
        if size > len(pool):
            raise ScheduleError(f"clients.count is {size}, but only {len(pool)} sites fit")
        chosen = rng.choice(len(pool), size=size, replace=False)
        return [pool[i] for i in sorted(int(c) for c in chosen)]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that :meth:`from_dict` reads."""
        return {
            "mode": self.mode,
            "count": self.count,
            "rate": self.rate,
            "where": {key: list(values) for key, values in self.where.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Selector:
        """Read plain data; values of ``where`` may be one text or a list."""
        known = {"mode", "count", "rate", "where"}
        for key in data:
            if key not in known:
                raise ScheduleError(f"clients: unknown key '{key}'{nearest(key, known)}")
        where = {
            str(key): tuple(map(str, value)) if isinstance(value, list | tuple) else (str(value),)
            for key, value in dict(data.get("where") or {}).items()
        }
        return cls(
            mode=str(data.get("mode", "all")),
            count=int(data.get("count", 0)),
            rate=float(data.get("rate", 1.0)),
            where=where,
        )

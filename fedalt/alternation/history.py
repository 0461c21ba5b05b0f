"""History: what past rounds measured, as an immutable record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedalt.errors import ScheduleError


@dataclass(frozen=True)
class History:
    """Metrics per past round; ``rounds[0]`` is round 1.

    A metric is named ``group/metric``; where the group is a phase, it is that phase's own.
    Schedules that rename phases (``nest``, ``fork``) hand their parts a history in which the
    old names still work: ``prefix`` and ``suffix`` are what the rename added to phase names.
    """

    rounds: tuple[Mapping[str, float], ...] = ()
    prefix: str = ""
    suffix: str = ""

    def __len__(self) -> int:
        return len(self.rounds)

    def append(self, metrics: Mapping[str, float]) -> History:
        """Return a history with one more round; the round may have measured nothing."""
        return replace(self, rounds=(*self.rounds, dict(metrics)))

    def renamed(self, prefix: str = "", suffix: str = "") -> History:
        """Return the history as a part sees it whose phases get ``prefix`` and ``suffix``."""
        return replace(self, prefix=self.prefix + prefix, suffix=suffix + self.suffix)

    def values(self, metric: str, since: int = 1) -> tuple[float, ...]:
        """Return the metric's values from round ``since`` on, leaving out rounds without it."""
        names = self._names(metric)
        measured = (
            next((entry[name] for name in names if name in entry), None)
            for entry in self.rounds[max(since, 1) - 1 :]
        )
        return tuple(value for value in measured if value is not None)

    def last(self, metric: str, since: int = 1) -> float | None:
        """Return the metric's newest value from round ``since`` on, or ``None``."""
        names = self._names(metric)
        for entry in reversed(self.rounds[max(since, 1) - 1 :]):
            for name in names:
                if name in entry:
                    return entry[name]
        return None

    def latest(self) -> dict[str, float]:
        """Return the newest value of every metric ever measured."""
        newest: dict[str, float] = {}
        for entry in self.rounds:
            newest.update(entry)
        return newest

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that :meth:`from_dict` reads."""
        return {"rounds": [dict(entry) for entry in self.rounds]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> History:
        """Read what :meth:`to_dict` wrote."""
        entries = data.get("rounds")
        if not isinstance(entries, Sequence) or isinstance(entries, str):
            raise ScheduleError("history: 'rounds' must be a list of metrics per round")
        return cls(tuple({str(k): float(v) for k, v in entry.items()} for entry in entries))

    def _names(self, metric: str) -> tuple[str, ...]:
        """Return what the metric may be called, renamed first.

        A phase's name and a metric's may both hold a slash: every split is tried.
        """
        if not (self.prefix or self.suffix):
            return (metric,)
        parts = metric.split("/")
        splits = [("/".join(parts[:i]), "/".join(parts[i:])) for i in range(len(parts) - 1, 0, -1)]
        return (*(f"{self.prefix}{phase}{self.suffix}/{name}" for phase, name in splits), metric)

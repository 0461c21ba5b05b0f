"""What came out of a claim: every statement judged, and the verdict on the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from fedalt.claims.claim import Claim
from fedalt.claims.judge import HOLDS, UNDECIDED, Judged, judge, overall
from fedalt.claims.measures import Measured
from fedalt.claims.statements import Statement
from fedalt.errors import ConfigError, nearest


@dataclass(frozen=True)
class Outcome:
    """A claim and its runs: for each arm what was measured, in the order of the seeds."""

    name: str
    claim: Claim
    seeds: Sequence[int]
    runs: Mapping[str, Sequence[Measured]]

    def values(self, measure: str) -> dict[str, list[float]]:
        """Return one measure by arm, one value a seed; arms without it are left out."""
        return {
            arm: [run.values[measure] for run in runs]
            for arm, runs in self.runs.items()
            if all(measure in run.values for run in runs)
        }

    @cached_property
    def holds(self) -> tuple[Judged, ...]:
        """The claimed statements of which all arms were run."""
        return self._judged(self.claim.holds)

    @cached_property
    def shown(self) -> tuple[Judged, ...]:
        """The same of those that are shown, not claimed."""
        return self._judged(self.claim.shown)

    @property
    def left_out(self) -> list[Statement]:
        """Claimed statements that speak of arms which were not run."""
        return [item for item in self.claim.holds if not item.arms <= set(self.runs)]

    @property
    def verdict(self) -> str:
        """Whether the claim holds; what was not judged leaves it undecided at best."""
        verdict = overall([item.verdict for item in self.holds])
        return UNDECIDED if verdict == HOLDS and self.left_out else verdict

    def _judged(self, statements: Sequence[Statement]) -> tuple[Judged, ...]:
        return tuple(
            judge(item, self.values(item.measure))
            for item in statements
            if item.arms <= set(self.runs)
        )


def check_measured(claim: Claim, arm: str, measured: Measured) -> None:
    """See that an arm's run has the measures that statements on it need.

    Raises :class:`ConfigError` with the nearest name: the first run tells a misspelt one.
    """
    for place, statements in (("holds", claim.holds), ("shown", claim.shown)):
        for i, item in enumerate(statements):
            if arm in item.arms and item.measure not in measured.values:
                raise ConfigError(
                    f"claim.{place}[{i}].measure: arm '{arm}' has no measure '{item.measure}'"
                    f"{nearest(item.measure, measured.values)}"
                )

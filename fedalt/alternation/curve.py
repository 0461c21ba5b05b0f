"""Curves: a value for each round of a schedule, counted from 0."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fedalt.alternation.phase import Scalar
from fedalt.errors import ScheduleError, nearest

SHAPES = ("linear", "cosine", "exponential")


@dataclass(frozen=True)
class Curve:
    """From ``start`` in the first round to ``stop`` in round ``rounds``, then level."""

    shape: str
    start: float
    stop: float
    rounds: int

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ScheduleError(f"unknown curve '{self.shape}'{nearest(self.shape, SHAPES)}")
        if self.rounds < 1:
            raise ScheduleError(f"{self.shape}: rounds is {self.rounds}, but must be at least 1")
        if not (math.isfinite(self.start) and math.isfinite(self.stop)):
            raise ScheduleError(f"{self.shape}: from and to must be finite numbers")
        if self.shape == "exponential" and not self.start * self.stop > 0:
            raise ScheduleError(
                f"exponential: from {self.start:g} to {self.stop:g} is not possible; both must "
                "be positive, or both negative"
            )

    def at(self, number: int) -> float:
        """Return the value in a round, counted from 0."""
        if number >= self.rounds - 1:
            return self.stop
        if number <= 0:
            return self.start
        part = number / (self.rounds - 1)
        if self.shape == "exponential":
            value = self.start * math.pow(self.stop / self.start, part)
        else:
            if self.shape == "cosine":
                part = (1 - math.cos(math.pi * part)) / 2
            value = self.start + (self.stop - self.start) * part
        # Rounding must not carry a value past the ends.
        low, high = sorted((self.start, self.stop))
        return min(max(value, low), high)


@dataclass(frozen=True)
class Steps:
    """A value from each of some rounds on, counted from 0; none before the first of them."""

    values: tuple[tuple[int, Scalar], ...]

    def __post_init__(self) -> None:
        starts = [start for start, _ in self.values]
        if not starts or starts[0] < 0 or sorted(set(starts)) != starts:
            raise ScheduleError(
                f"curriculum: its rounds are {starts}, but must be 0 or more and rising"
            )

    def at(self, number: int) -> Scalar | None:
        """Return the value in a round, counted from 0; ``None`` before the first."""
        found = [value for start, value in self.values if start <= number]
        return found[-1] if found else None


def linear(start: float, stop: float, rounds: int) -> Curve:
    """Go from ``start`` to ``stop`` in equal steps over ``rounds`` rounds, then stay."""
    return Curve("linear", float(start), float(stop), rounds)


def cosine(start: float, stop: float, rounds: int) -> Curve:
    """Go from ``start`` to ``stop`` along half a cosine over ``rounds`` rounds, then stay."""
    return Curve("cosine", float(start), float(stop), rounds)


def exponential(start: float, stop: float, rounds: int) -> Curve:
    """Go from ``start`` to ``stop`` by equal factors over ``rounds`` rounds, then stay."""
    return Curve("exponential", float(start), float(stop), rounds)


def steps(values: Mapping[int, Scalar]) -> Steps:
    """Hold each value from its round on (counted from 0) until the next."""
    return Steps(tuple(sorted((int(start), value) for start, value in values.items())))

"""How a phase protects the people behind its data: plain data in the phase.

A spec says whom a phase protects (a record, a user with several records, or a client), where
noise is added (at the site, in shares that only sum to enough, or by the server), and by how
much: contributions are clipped to an L2 norm of C and get Gaussian noise of standard deviation
z·C. What that costs follows from the spec and the schedule alone (``fedalt.privacy``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from fedalt.errors import ScheduleError, nearest

UNITS = ("record", "user", "client")
"""Whom a mechanism protects; each covers the ones before it."""
TRUST = ("local", "distributed", "central")
"""Who may see what is not yet protected: the site alone, nobody but the site, the server."""
MECHANISMS = ("gaussian", "banded")
RNGS = ("os", "seeded")
METRICS = ("withhold", "release")
PER_SAMPLE = ("auto", "hooks", "functorch", "ghost")


@dataclass(frozen=True)
class PrivacySpec:
    """Who is protected in a phase, and how. See docs/privacy.md for what combines.

    ``unit`` is the one whose presence is hidden. ``trust``: ``local`` (the site adds the noise),
    ``distributed`` (sites add shares of it under secure aggregation) or ``central`` (the server
    adds it); by default central for clients, local for records and users. ``clip`` is C, for the
    whole contribution, or ``clips`` one for each trained block by name; ``noise`` is z. With
    ``mechanism: banded`` the noise of rounds is correlated over ``bands`` of them.

    For clients: contributions weigh alike, or by ``min(n, weight_cap)/weight_cap``; the sum is
    divided by the constant ``denominator``, by default the expected number of clients. With
    ``quantile`` γ > 0 the clip follows that quantile of the updates' norms, at ``rate`` η and
    with noise ``count_noise`` σ_b on the count. ``dropouts`` is the share of a cohort that may
    drop out of a secure aggregation.

    For records and users: ``sample_rate`` is q of a Poisson sample of the rows (0: batch size
    over the site's size), ``contributions`` the most records one user may have in a site, and
    ``per_sample`` how gradients of single rows are had.

    ``rng`` ``os`` draws noise and secret samples from the operating system; ``seeded`` draws them
    from the experiment's seed, for tests: it protects nobody. ``metrics`` ``release`` tells what
    clients measured, which no noise covers.
    """

    unit: str = "client"
    trust: str = ""
    mechanism: str = "gaussian"
    clip: float = 1.0
    clips: Mapping[str, float] = field(default_factory=dict)
    noise: float = 1.0
    bands: int = 0
    weight_cap: float = 0.0
    denominator: float = 0.0
    quantile: float = 0.0
    rate: float = 0.2
    count_noise: float = 0.0
    dropouts: float = 0.0
    sample_rate: float = 0.0
    contributions: int = 1
    per_sample: str = "auto"
    rng: str = "os"
    metrics: str = "withhold"

    def __post_init__(self) -> None:
        if not self.trust:
            object.__setattr__(self, "trust", "central" if self.unit == "client" else "local")
        for key, known in (
            ("unit", UNITS),
            ("trust", TRUST),
            ("mechanism", MECHANISMS),
            ("rng", RNGS),
            ("metrics", METRICS),
            ("per_sample", PER_SAMPLE),
        ):
            value = getattr(self, key)
            if value not in known:
                raise ScheduleError(f"privacy: unknown {key} '{value}'{nearest(str(value), known)}")
        self._check_numbers()
        self._check_combination()

    def _check_numbers(self) -> None:
        if not isinstance(self.clips, Mapping):
            raise ScheduleError(_no_clips(self.clips))
        if not _finite(self.noise) or self.noise <= 0.0:
            raise ScheduleError(
                f"privacy: noise is {self.noise}, but must be a number above 0: without noise a "
                "contribution of any size is given away (ε = ∞); leave the phase's privacy out to "
                "train without"
            )
        bounds = {"clip": self.clip, **{f"clips.{name}": v for name, v in self.clips.items()}}
        for key, bound in bounds.items():
            if not _finite(bound) or bound <= 0.0:
                raise ScheduleError(
                    f"privacy: {key} is {bound}, but must be a finite number above 0: noise can "
                    "only hide contributions of bounded size"
                )
        for key, low, high in (
            ("weight_cap", 0.0, 1e9),
            ("denominator", 0.0, 1e12),
            ("quantile", 0.0, 1.0),
            ("rate", 0.0, 10.0),
            ("count_noise", 0.0, 1e9),
            ("dropouts", 0.0, 0.99),
            ("sample_rate", 0.0, 1.0),
        ):
            if not low <= getattr(self, key) <= high:
                raise ScheduleError(
                    f"privacy: {key} is {getattr(self, key)}, but must lie in [{low:g}, {high:g}]"
                )

    def _check_combination(self) -> None:
        of_client = self.unit == "client"
        rules = [
            (of_client or self.trust == "local", f"unit '{self.unit}' needs trust 'local'"),
            (
                self.mechanism == "gaussian" or (of_client and self.trust == "central"),
                "mechanism 'banded' needs unit 'client' and trust 'central'",
            ),
            (
                self.mechanism == "banded" or self.bands == 0,
                f"bands is {self.bands}, but noise is correlated only with mechanism: banded; set "
                "that, or leave bands out",
            ),
            (
                self.mechanism != "banded" or self.bands > 1,
                f"mechanism 'banded' needs bands of 2 or more, but bands is {self.bands}",
            ),
            (
                not self.quantile
                or (of_client and self.trust == "central" and self.mechanism == "gaussian"),
                "quantile needs unit 'client', trust 'central' and mechanism 'gaussian'",
            ),
            (
                not self.quantile or self.count_noise > self.noise / 2,
                f"count_noise is {self.count_noise:g}, but must be above noise/2 = "
                f"{self.noise / 2:g}: the count takes its share of the noise multiplier",
            ),
            (not (self.quantile and self.clips), "quantile adapts one clip, not one a block"),
            (of_client or not self.clips, f"clips a block need unit 'client', not '{self.unit}'"),
            (
                not self.dropouts or self.trust == "distributed",
                "dropouts needs trust 'distributed'",
            ),
            (
                self.unit != "user" or self.contributions > 1,
                f"unit 'user' with contributions {self.contributions}: set contributions to 2 or "
                "more, the most records one user may have, or unit: record",
            ),
            (
                self.unit == "user" or self.contributions == 1,
                f"contributions is {self.contributions}, but must be 1 unless unit is 'user'",
            ),
        ]
        for holds, text in rules:
            if not holds:
                raise ScheduleError(f"privacy: {text}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that :meth:`from_dict` reads."""
        data = {item.name: getattr(self, item.name) for item in fields(self)}
        return {**data, "clips": dict(self.clips)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PrivacySpec:
        """Read plain data; raises :class:`ScheduleError` with the nearest known key."""
        if not isinstance(data, Mapping):
            raise ScheduleError(
                f"privacy is {data!r}, but entries 'name: value' are expected, such as "
                "{unit: client, clip: 1.0, noise: 1.0}"
            )
        known = tuple(item.name for item in fields(cls))
        for key in data:
            if key not in known:
                raise ScheduleError(f"privacy: unknown key '{key}'{nearest(str(key), known)}")
        values = dict(data)
        for item in fields(cls):
            value = values.get(item.name)
            if value is None:
                values.pop(item.name, None)
            elif item.name == "clips":
                if not isinstance(value, Mapping):
                    raise ScheduleError(_no_clips(value))
                bounds = {str(k): _number(v, f"clips.{k}") for k, v in value.items()}
                values["clips"] = dict(sorted(bounds.items()))
            elif item.type == "float":
                values[item.name] = _number(value, item.name)
            elif item.type == "int" and (not isinstance(value, int) or isinstance(value, bool)):
                raise ScheduleError(f"privacy: {item.name} is {value!r}, but must be whole")
        return cls(**values)


def _number(value: Any, key: str) -> float:
    """Read a number; YAML reads ``1e-3`` as text, so a text of one will do."""
    wrong = f"privacy: {key} is {value!r}, but must be a number"
    if isinstance(value, bool):
        raise ScheduleError(wrong)
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ScheduleError(wrong) from error


def _finite(value: Any) -> bool:
    return not isinstance(value, bool) and math.isfinite(value)


def _no_clips(value: Any) -> str:
    return (
        f"privacy: clips is {value!r}, but a bound for each block is expected, block: bound, such "
        "as {body: 1.0, head: 0.5}; clip is the one for the whole contribution"
    )

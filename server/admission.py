"""Admission: no reply changes the model before every rule here has passed.

Each rule is a small function that raises :class:`AdmissionError` naming the site, the round
and the rule. A reply that breaks one is left out; the round goes on while the quorum holds,
and its aggregate equals that of a round in which the sender had not replied.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Message

from fedalt.alternation.phase import Phase
from fedalt.alternation.site import Site
from fedalt.errors import AdmissionError, WireError
from fedalt.privacy.sampling import row_sample, rows_shown
from fedalt.privacy.stages import GRADIENT, leaves
from fedalt.server.finite import FiniteStacks, all_finite
from fedalt.wire.records import WEIGHT, Reply, read_reply
from fedalt.wire.report import Applied

_ROUNDING = 1e-9
MAX_EXAMPLES = 1e9
"""Declared weights above this are absurd: one client would own the mean."""


@dataclass(frozen=True)
class Expected:
    """What a phase of a round expects of each reply."""

    run_id: str
    round: int
    phase: str
    arrays: Mapping[str, np.ndarray]
    protections: Mapping[int, tuple[Applied, ...]] = field(default_factory=dict)
    """What each site that adds noise itself has to say it did, by site."""
    bounded: bool = False
    """Whether the sum of the replies is clipped and noised here."""


@dataclass(frozen=True)
class Admitted:
    """A reply that passed, with the Flower message that carried it."""

    site: int
    message: Message
    reply: Reply


@dataclass(frozen=True)
class Refused:
    """A reply that did not pass: which site, which rule, and why."""

    site: int
    rule: str
    reason: str


def _addressed(site: int, reply: Reply, expected: Expected, stacks: FiniteStacks) -> None:
    report = reply.report
    told = (report.run_id, report.round, report.phase, report.site)
    asked = (expected.run_id, expected.round, expected.phase, site)
    if told != asked:
        raise AdmissionError(f"it answers (run, round, phase, site) {told}, asked was {asked}")


def _complete(site: int, reply: Reply, expected: Expected, stacks: FiniteStacks) -> None:
    if list(reply.arrays) == list(expected.arrays):
        return
    missing = sorted(set(expected.arrays) - set(reply.arrays))
    extra = sorted(set(reply.arrays) - set(expected.arrays))
    if missing or extra:
        raise AdmissionError(
            f"arrays missing: {missing or 'none'}; not asked for: {extra or 'none'}"
        )
    # Some stock strategies pair arrays by position.
    raise AdmissionError(
        f"its arrays come as {list(reply.arrays)}, asked was the order {list(expected.arrays)}"
    )


def _shaped(site: int, reply: Reply, expected: Expected, stacks: FiniteStacks) -> None:
    for name, values in reply.arrays.items():
        wanted = expected.arrays[name]
        if values.shape != wanted.shape or values.dtype != wanted.dtype:
            raise AdmissionError(
                f"array '{name}' is {values.dtype}{values.shape}, the round expects "
                f"{wanted.dtype}{wanted.shape}"
            )


def _finite(site: int, reply: Reply, expected: Expected, stacks: FiniteStacks) -> None:
    for name, values in reply.arrays.items():
        if not stacks.holds(values) and not all_finite(values):
            bad = int((~np.isfinite(values)).sum())
            raise AdmissionError(f"array '{name}' holds {bad} values that are not finite")


def _weighted(site: int, reply: Reply, expected: Expected, stacks: FiniteStacks) -> None:
    weight = reply.metrics.get(WEIGHT)
    if weight is None:
        raise AdmissionError(f"the metric '{WEIGHT}' is missing")
    if not math.isfinite(weight) or weight < 0 or weight > MAX_EXAMPLES:
        raise AdmissionError(f"{WEIGHT} is {weight}; it must lie between 0 and {MAX_EXAMPLES:g}")
    if weight != reply.report.num_examples:
        raise AdmissionError(f"{WEIGHT} is {weight}, the report says {reply.report.num_examples}")


def _protected(site: int, reply: Reply, expected: Expected, stacks: FiniteStacks) -> None:
    asked, told = expected.protections.get(site, ()), reply.report.applied
    if len(asked) != len(told):
        raise AdmissionError(
            f"it says that it protected {len(told)} stages of its work, the phase asks for "
            f"{len(asked)}; does the site run a version that knows the mechanism?"
        )
    for wanted, found in zip(asked, told, strict=True):
        kept = (
            found.unit == wanted.unit
            and found.clip <= wanted.clip * (1 + _ROUNDING)
            and found.noise_multiplier >= wanted.noise_multiplier * (1 - _ROUNDING)
            and found.noise_std >= found.noise_multiplier * found.clip * (1 - _ROUNDING)
            and found.sample_rate <= wanted.sample_rate * (1 + _ROUNDING)
            and found.steps <= wanted.steps
        )
        # Written so that a value that is no number is none that was kept.
        if not kept:
            raise AdmissionError(f"it says that it applied {found}, the phase asks for {wanted}")


Check = Callable[[int, Reply, Expected, FiniteStacks], None]
RULES: Mapping[str, Check] = {
    "addressed": _addressed,
    "complete": _complete,
    "shaped": _shaped,
    "finite": _finite,
    "weighted": _weighted,
    "protected": _protected,
}


def protections_of(phase: Phase, site: Site) -> tuple[Applied, ...]:
    """Return what a site has to say that it applied, stage by stage, with its sample's bounds."""
    spec = phase.privacy
    if spec is not None and spec.unit == "client":
        if spec.trust != "local":
            return ()
        clip = math.hypot(*spec.clips.values()) if spec.clips else spec.clip
        noise = spec.noise / math.sqrt(max(1, len(spec.clips)))
        return (Applied("client", clip, 0.0, noise, 0.0, 1, ""),)
    found = []
    for leaf in leaves(phase):
        own = leaf.privacy
        if own is None:
            continue
        rate, steps = 0.0, 1
        if leaf.kernel == GRADIENT:
            shown = rows_shown(site.size, leaf.view.fraction)
            sample = row_sample(leaf, shown)
            rate, steps = sample.rate, sample.steps
        found.append(Applied(own.unit, own.clip, 0.0, own.noise, rate, steps, ""))
    return tuple(found)


def admit(
    replies: Sequence[tuple[int, Message]], expected: Expected
) -> tuple[list[Admitted], list[Refused]]:
    """Sort replies by site and apply every rule to each.

    ``replies`` pairs a site index with its message. Of two replies by one site the first
    counts and the other is refused; so is one that names its metrics unlike most. If all
    admitted weights are zero, all are refused, since no mean exists. Of a phase that bounds what
    one client can do (``expected.bounded``) these two rules are left out: by them one reply would
    decide whether others count.
    """
    ordered = sorted(replies, key=lambda pair: pair[0])
    read = [(site, message, _read(site, message)) for site, message in ordered]
    stacks = FiniteStacks(reply.arrays for _, _, reply in read if isinstance(reply, Reply))
    admitted: dict[int, Admitted] = {}
    refused: list[Refused] = []
    for site, message, reply in read:
        if site in admitted:
            refused.append(Refused(site, "once", "a second reply by the same site"))
        elif isinstance(reply, Refused):
            refused.append(reply)
        else:
            verdict = _first_broken(site, reply, expected, stacks)
            if verdict is None:
                admitted[site] = Admitted(site, message, reply)
            else:
                refused.append(verdict)
    if expected.bounded:
        return list(admitted.values()), refused
    refused += _inconsistent(admitted)
    if admitted and not any(a.reply.metrics[WEIGHT] > 0 for a in admitted.values()):
        refused += [
            Refused(site, "weighted", f"{WEIGHT} is 0 for every client") for site in admitted
        ]
        admitted = {}
    return list(admitted.values()), refused


def _read(site: int, message: Message) -> Reply | Refused:
    if message.has_error():
        return Refused(site, "answered", message.error.reason or "it gave no reason")
    try:
        return read_reply(message.content)
    except WireError as error:
        return Refused(site, "readable", str(error))


def _inconsistent(admitted: dict[int, Admitted]) -> list[Refused]:
    """Take out replies whose names of records and metrics are not those of most.

    Stock strategies give a round up over one of them. Of equally many, the lowest site's count.
    """
    names = {}
    in_order: dict[tuple[tuple[str, ...], tuple[str, ...]], tuple[str, ...]] = {}
    for site, item in admitted.items():
        found = tuple(item.message.content), tuple(item.reply.metrics)
        # Nearly all replies come alike, so few are sorted.
        if found not in in_order:
            in_order[found] = (*sorted(found[0]), *sorted(found[1]))
        names[site] = in_order[found]
    if not names:
        return []
    ((usual, _),) = Counter(names.values()).most_common(1)
    refused = [
        Refused(
            site,
            "consistent",
            f"its records and metrics are {', '.join(mine)}; those of most: {', '.join(usual)}",
        )
        for site, mine in names.items()
        if mine != usual
    ]
    for verdict in refused:
        del admitted[verdict.site]
    return refused


def _first_broken(
    site: int, reply: Reply, expected: Expected, stacks: FiniteStacks
) -> Refused | None:
    for rule, check in RULES.items():
        try:
            check(site, reply, expected, stacks)
        except AdmissionError as error:
            return Refused(site, rule, str(error))
    return None

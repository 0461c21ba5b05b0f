"""A run's terms of privacy, from its configuration, and what a reader of its ε should know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any

from fedalt.alternation.adapt import Adaptive
from fedalt.alternation.local import LOCAL
from fedalt.alternation.parse import parse_schedule
from fedalt.alternation.phase import Phase, with_inner
from fedalt.alternation.privacy_spec import UNITS
from fedalt.alternation.schedule import Schedule, walk
from fedalt.alternation.site import Site
from fedalt.errors import ConfigError, nearest
from fedalt.hashing import json_hash
from fedalt.privacy.account import DISJOINT
from fedalt.privacy.accounting import RELATIONS
from fedalt.privacy.entries import Terms
from fedalt.privacy.stages import is_private, leaves

POLICIES = ("stop", "skip-client", "refuse")
FEW_CLIENTS = 30
"""Below that many, hiding one client among the others hides little."""
PACKAGES = ("dp-accounting", "numpy", "opacus", "randomgen", "scipy")


def versions_here() -> dict[str, str]:
    """Return the versions of the libraries that an ε depends on."""
    return {name: metadata.version(name) for name in PACKAGES}


def private_phases(phases: Iterable[Phase]) -> list[Phase]:
    """Return the phases that protect someone."""
    return [phase for phase in phases if is_private(phase)]


def units_of(phases: Iterable[Phase]) -> tuple[str, ...]:
    """Return the units that phases protect, the smallest first."""
    specs = [item.privacy for item in with_inner(phases) if item.privacy is not None]
    named = {spec.unit for spec in specs}
    return tuple(unit for unit in UNITS if unit in named)


def terms_of(
    config: Mapping[str, Any], phases: Sequence[Phase], sites: Sequence[Site]
) -> Terms | None:
    """Return a run's terms, or None where no phase protects anyone.

    δ is by default N^−1.1 for N units: records, or clients where only these are protected.
    Raises :class:`ConfigError` for settings that do not fit.
    """
    units, settings = units_of(phases), config["privacy"]
    if not units:
        return None
    records = sum(site.size for site in sites)
    count = len(sites) if units == ("client",) else records
    delta = settings["delta"]
    delta = float(max(count, 2)) ** -1.1 if delta is None else float(delta)
    if not 0.0 < delta < 1.0:
        raise ConfigError(f"privacy.delta={delta:g}: must lie between 0 and 1")
    for key, known in (("relation", RELATIONS), ("policy", POLICIES), ("disjoint", DISJOINT)):
        value = settings[key]
        if value not in known:
            raise ConfigError(f"privacy.{key}: unknown {key} '{value}'{nearest(value, known)}")
    return Terms(
        sites=len(sites),
        records=records,
        delta=delta,
        relation=settings["relation"],
        disjoint=settings["disjoint"],
        policy=settings["policy"],
        budget=_budget(settings["budget"], units, phases),
        adaptive=decides(parse_schedule(config["phases"], config["schedule"])),
        config_sha256=json_hash({k: v for k, v in config.items() if k != "compared"}),
        versions=versions_here(),
    )


def decides(schedule: Schedule) -> bool:
    """Say whether what a run measures decides about its phases, or when it ends.

    Then only bounds that hold at every such end are sound (see ``Accountant.tight``).
    """
    for node in walk(schedule):
        condition = getattr(node, "stop", None) or getattr(node, "condition", None)
        if isinstance(node, Adaptive) or getattr(condition, "needs_metrics", False):
            return True
    return False


def _budget(
    given: Mapping[str, Any], units: Sequence[str], phases: Sequence[Phase]
) -> dict[str, float]:
    blocks = {block for phase in with_inner(phases) for block in phase.train or ("all",)}
    found = {}
    for key, limit in given.items():
        unit, slash, block = str(key).partition("/")
        if unit not in UNITS:
            raise ConfigError(f"privacy.budget: unknown unit '{unit}'{nearest(unit, UNITS)}")
        if unit not in units:
            raise ConfigError(
                f"privacy.budget: no phase protects a {unit} (protected: {', '.join(units)}), so "
                f"its ε is infinite from the first round; take it out: ~privacy.budget.{key}"
            )
        if slash and block not in blocks:
            raise ConfigError(f"privacy.budget: no phase trains block '{block}'"
                              f"{nearest(block, blocks)}")  # fmt: skip
        if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit > 0:
            raise ConfigError(f"privacy.budget.{key}={limit!r}: must be an ε above 0")
        found[str(key)] = float(limit)
    return found


def check_protected(
    config: Mapping[str, Any], phases: Sequence[Phase], blocks: Iterable[str] = ()
) -> None:
    """Raise :class:`ConfigError` for whatever would be released without a mechanism.

    ``privacy.allow_unprotected=true`` lets it pass; the ledger then counts it as ε = ∞.
    """
    if not private_phases(phases):
        return
    if config["privacy"]["allow_unprotected"]:
        if config["privacy"]["budget"]:
            raise ConfigError(
                "privacy.allow_unprotected=true lets ε be infinite, which no privacy.budget holds; "
                "take one of the two away"
            )
        return
    _check_local(phases)
    hint = "or say privacy.allow_unprotected=true, and every ε is infinite"
    for phase in phases:
        for leaf in leaves(phase):
            if leaf.privacy is None:
                raise ConfigError(
                    f"phase '{leaf.name}' has no privacy while others have: what it trains is "
                    f"released as it is; give it a spec (phases.{leaf.name}.privacy), {hint}"
                )
            if leaf.privacy.metrics == "release":
                raise ConfigError(
                    f"phase '{leaf.name}': privacy.metrics=release tells what clients measured, "
                    f"which no noise covers; withhold them, {hint}"
                )
    every = config["evaluate"]["clients_every"]
    if every:
        raise ConfigError(
            f"evaluate.clients_every={every} tells what clients measure on their own data, which "
            f"no noise covers; set it to 0 and let the server judge, {hint}"
        )


def _check_local(phases: Sequence[Phase]) -> None:
    """Refuse rows' protection beside blocks that stay at a site and saw its rows without."""
    units = units_of(phases)
    if not {"record", "user"} & set(units):
        return
    for phase in phases:
        kept = [b for item in with_inner([phase]) for b, rule in item.aggregate.items()
                if rule == LOCAL]  # fmt: skip
        rows = all(leaf.privacy and leaf.privacy.unit != "client" for leaf in leaves(phase))
        if kept and not rows:
            raise ConfigError(
                f"phase '{phase.name}' trains block '{kept[0]}', which stays at each site, without "
                "protecting rows: later phases that protect rows would tell of them through it; "
                "give it unit 'record' too, or share the block"
            )


def check_judge(config: Mapping[str, Any], task: object) -> None:
    """Raise :class:`ConfigError` where the server would judge on the sites' training rows.

    A task says that it does by ``judges_training_rows``.
    """
    every = config["evaluate"]["server_every"]
    allowed = config["privacy"]["allow_unprotected"]
    if every and getattr(task, "judges_training_rows", False) and not allowed:
        raise ConfigError(
            f"evaluate.server_every={every}: {type(task).__name__} judges on the sites' training "
            "rows, which no noise covers; set it to 0, or use a task that holds rows out"
        )


def check_commits(config: Mapping[str, Any], phases: Sequence[Phase]) -> None:
    """Raise :class:`ConfigError` where correlated noise and rounds done again would not agree.

    A round that is done again gets other noise over the same past, and whoever saw the first
    could tell the two apart: so each round is committed before the next.
    """
    every = config["checkpoint"]["every"]
    for phase in private_phases(phases):
        if phase.privacy is not None and phase.privacy.mechanism == "banded" and every > 1:
            raise ConfigError(
                f"phase '{phase.name}': noise over bands needs checkpoint.every=1, not {every}: "
                "rounds that a resumed run does again would release other noise over the same past"
            )


def check_relation(terms: Terms, phases: Sequence[Phase]) -> None:
    """Raise :class:`ConfigError` for samples that no account under the relation covers."""
    for phase in private_phases(phases):
        poisson = phase.clients.mode == "poisson" and phase.privacy is not None
        rows = any(
            leaf.privacy is not None and leaf.privacy.unit != "client" and leaf.kernel == "gradient"
            for leaf in leaves(phase)
        )
        if terms.relation == "replace_one" and (poisson or rows):
            # Rows are always drawn by Poisson sampling; how clients are drawn can be chosen.
            other = "" if rows else ", or clients of mode 'fixed'"
            raise ConfigError(
                f"phase '{phase.name}': Poisson samples are accounted for under add_remove or "
                f"zero_out, not replace_one; use privacy.relation=add_remove{other}"
            )


def notes_of(terms: Terms, phases: Sequence[Phase]) -> list[str]:
    """Return what a reader of an ε should know about it, in plain words."""
    units, notes = units_of(phases), []
    for unit in units:
        count = terms.sites if unit == "client" else terms.records
        if terms.delta >= 1.0 / count:
            notes.append(
                f"δ={terms.delta:.3g} is not below 1/N={1 / count:.3g} for N={count} {unit}s: a "
                f"mechanism that publishes one {unit} chosen at random would pass; use "
                f"privacy.delta={count**-1.1:.2g} or less"
            )
    if "client" in units and terms.sites < FEW_CLIENTS:
        notes.append(
            f"client-level privacy hides one of {terms.sites} clients among so few: noise that "
            "hides one drowns most of what they learn, and people inside a client are only "
            "protected as part of it; for a handful of silos protect records"
        )
    if any(
        item.privacy is not None and item.privacy.rng == "seeded" for item in with_inner(phases)
    ):
        notes.append(
            "noise comes from the experiment's seed (rng: seeded): whoever has the configuration "
            "can subtract it; it is for tests and protects nobody"
        )
    return notes

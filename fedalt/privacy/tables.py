"""Tables of what is spent, for plans and for reports of runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedalt.alternation.site import Site
from fedalt.privacy.account import Scope
from fedalt.privacy.accounting import Bound
from fedalt.privacy.alternatives import Alternative
from fedalt.privacy.summary import SiteSpending, Spending
from fedalt.runs.report import Table

MOST_SITES = 20
"""So many sites are shown one by one: what a single one has spent is for its operator."""


def epsilon(value: float) -> float | str:
    """Return an ε for a table's cell."""
    return "∞" if math.isinf(value) else value


def units_table(title: str, bounds: Mapping[str, tuple[Bound, Bound]], delta: float) -> Table:
    """Return the ε of each unit: the quick bound and the smallest."""
    rows = tuple(
        (unit, epsilon(quick.epsilon), epsilon(tight.epsilon), tight.method)
        for unit, (quick, tight) in bounds.items()
    )
    note = (
        f"at δ={delta:.3g}; 'running' is the bound that a run keeps up with, 'ε' the smallest "
        "sound one"
    )
    return Table(title, ("unit", "running", "ε", "bound"), rows, (note,))


def scopes_table(found: Sequence[Spending]) -> Table | None:
    """Return the ε by block, modality and task; None where there is nothing to tell apart."""
    rows = tuple(
        (
            item.scope.unit,
            *what(item.scope),
            item.sites,
            item.least,
            item.most,
            epsilon(item.bound.epsilon),
            item.bound.method,
        )
        for item in found
        if item.scope != Scope(item.scope.unit)
    )
    columns = ("unit", "of", "name", "sites", "least", "most", "ε", "bound")
    note = (
        "least and most: charges of a site; what one person gave to several of these adds up, "
        "see the ε of the unit"
    )
    return Table("by block, modality and task", columns, rows, (note,)) if rows else None


def what(scope: Scope) -> tuple[str, str]:
    """Return what a scope is of, and its name."""
    for key in ("block", "modality", "task"):
        if getattr(scope, key):
            return key, getattr(scope, key)
    return "all", ""


def alternatives_table(ways: Sequence[Alternative]) -> Table | None:
    """Return the schedule's ε of a client beside that of other ways to do as many rounds.

    None where nobody is spared any round, so that the ways are one.
    """
    if len({way.bound.epsilon for way in ways}) < 2:
        return None
    rows = tuple(
        (way.name, way.how, way.touches, epsilon(way.bound.epsilon), way.bound.method)
        for way in ways
    )
    columns = ("way", "who is charged", "touches", "ε", "bound")
    return Table("what alternation costs a client", columns, rows)


def _quantiles(found: SiteSpending) -> Table:
    """Return quantiles over sites of their own ε."""
    values = found.quantiles()
    row = tuple(epsilon(value) for value in values.values())
    note = "" if found.tight else "by the running bound: the sites' histories are many"
    title = f"ε of a {found.unit} over {len(found.epsilon)} sites"
    return Table(title, tuple(values), (row,), (note,) if note else ())


def site_tables(found: SiteSpending, sites: Sequence[Site]) -> list[Table]:
    """Return how ε lies over sites, and who has spent most; nothing where all have spent alike."""
    alike = bool(np.all(found.epsilon == found.epsilon[0]))
    return [] if alike else [_quantiles(found), _largest(found, sites)]


def _largest(found: SiteSpending, sites: Sequence[Site]) -> Table:
    """Return the sites that have spent most; a ledger does not know how many records each has."""
    order = np.lexsort((np.arange(len(found.epsilon)), -found.epsilon))[:MOST_SITES]
    known = any(site.size for site in sites)
    rows = tuple(
        (
            sites[i].name,
            *((sites[i].size,) if known else ()),
            int(found.touches[i]),
            epsilon(float(found.epsilon[i])),
        )
        for i in order.tolist()
    )
    few = len(found.epsilon) <= MOST_SITES
    title = f"ε of a {found.unit} by site" + ("" if few else f": the {MOST_SITES} largest")
    note = "for whoever runs the federation: a single site's ε tells of its part in it"
    columns = ("site", *(("records",) if known else ()), "charges", "ε")
    return Table(title, columns, rows, (note,))


def spending_facts(found: Sequence[Spending]) -> list[dict[str, Any]]:
    """Return scopes as plain data; an infinite ε is null in JSON, and ``protected`` false."""
    return [
        {
            **vars(item.scope),
            "epsilon": item.bound.epsilon,
            "bound": item.bound.method,
            "protected": math.isfinite(item.bound.epsilon),
            "sites": item.sites,
            "least": item.least,
            "most": item.most,
        }
        for item in found
    ]

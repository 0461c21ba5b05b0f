"""Aggregation rules by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from fedalt.alternation.local import LOCAL
from fedalt.alternation.site import Site
from fedalt.errors import ConfigError, nearest
from fedalt.server.strategies.rules.balanced import balanced, group_of
from fedalt.server.strategies.rules.base import Rule
from fedalt.server.strategies.rules.mean import keep, mean, median, sum_
from fedalt.server.strategies.rules.statistics import pooled_moments, quantile
from fedalt.server.strategies.rules.subspace import consensus, orthonormal, top_eigenspace

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "mean": mean,
        "median": median,
        "sum": sum_,
        "keep": keep,
        "consensus": consensus,
        "orthonormal": orthonormal,
        "top_eigenspace": top_eigenspace,
        "pooled_moments": pooled_moments,
        "quantile": quantile,
    }
)
"""The rules that a phase's ``aggregate`` may name."""


def rule(name: str) -> Rule:
    """Return the rule of that name; raise :class:`ConfigError` with the nearest if none is.

    ``balanced:ATTRIBUTE`` is the mean in which groups of sites weigh alike.
    """
    kind, _, attribute = name.partition(":")
    if kind == "balanced" and attribute:
        return balanced(attribute)
    if name not in RULES:
        known = (*RULES, LOCAL, "balanced:modality")
        raise ConfigError(f"there is no aggregation rule '{name}'{nearest(name, known)}")
    return RULES[name]


def check_groups(name: str, sites: Iterable[Site]) -> None:
    """Raise :class:`ConfigError` for a site that belongs to no group of a balanced rule."""
    kind, _, attribute = name.partition(":")
    for site in sites if kind == "balanced" else ():
        group_of(site, attribute)

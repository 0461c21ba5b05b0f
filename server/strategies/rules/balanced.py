"""The mean in which groups of sites weigh alike, whatever their number and their sizes.

    x̄ = 1/G Σ_g Σ_{i∈g} (n_i / n_g) x_i          n_g = Σ_{i∈g} n_i,  G groups that replied

``balanced:modality`` groups sites by their attribute ``modality``: with three CT sites and one
MR site, the MR site weighs as much as the three.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fedalt.alternation.site import Site
from fedalt.errors import ConfigError
from fedalt.server.strategies.rules.base import Aggregate, Contribution, Rule, RuleContext
from fedalt.server.strategies.rules.mean import mean, weights_of


def balanced(attribute: str) -> Rule:
    """Return the rule that weighs the groups of an attribute alike."""

    def rule(ctx: RuleContext, contributions: Sequence[Contribution]) -> Aggregate:
        groups: dict[str, list[Contribution]] = {}
        sites = {reply.site: ctx.sites[reply.site] for reply in contributions}
        for reply in contributions:
            groups.setdefault(group_of(sites[reply.site], attribute), []).append(reply)
        share = {
            reply.site: weight / len(groups)
            for replies in groups.values()
            for reply, weight in zip(replies, weights_of(replies), strict=True)
        }
        return mean(ctx, [replace(reply, weight=share[reply.site]) for reply in contributions])

    return rule


def group_of(site: Site, attribute: str) -> str:
    """Return a site's group; raises :class:`ConfigError` where it has no such attribute."""
    attributes: Mapping[str, str] = site.attributes
    if attribute not in attributes:
        known = ", ".join(sorted(attributes)) or "none"
        raise ConfigError(
            f"rule 'balanced:{attribute}': site '{site.name}' has no attribute '{attribute}' "
            f"(it has: {known})"
        )
    return attributes[attribute]

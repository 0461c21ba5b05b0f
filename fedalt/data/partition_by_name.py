"""Partitions by name, for configuration: ``{name: dirichlet, alpha: 0.3}``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from fedalt.data import partitions as rules
from fedalt.errors import ConfigError, nearest


@dataclass(frozen=True)
class Rule:
    """A partition's function, what it reads of the data, and its options.

    ``reads`` is ``rows`` (their number), ``labels`` or ``values``.
    """

    function: Callable[..., rules.Parts]
    reads: str
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    random: bool = True


PARTITIONS: Mapping[str, Rule] = MappingProxyType(
    {
        "iid": Rule(rules.iid, "rows"),
        "dirichlet": Rule(rules.dirichlet, "labels", ("alpha",), ("min_size",)),
        "dirichlet_sizes": Rule(rules.dirichlet_sizes, "rows", ("alpha",), ("min_size",)),
        "pathological": Rule(rules.pathological, "labels", ("shards_per_client",)),
        "sorted_by": Rule(rules.sorted_by, "values", random=False),
    }
)


def partition(
    name: str,
    clients: int,
    rng: np.random.Generator,
    *,
    rows: int | None = None,
    labels: np.ndarray | None = None,
    values: np.ndarray | None = None,
    **options: Any,
) -> rules.Parts:
    """Partition by a rule's name; pass whichever of ``rows``, ``labels``, ``values`` there is.

    ``rows`` may be left out where labels or values tell it. Raises :class:`ConfigError` for
    an unknown name, an unknown or missing option, or a rule whose input is not there, and
    :class:`~fedalt.errors.DataError` for data that cannot be divided so.
    """
    if name not in PARTITIONS:
        raise ConfigError(f"unknown partition '{name}'{nearest(name, PARTITIONS)}")
    rule = PARTITIONS[name]
    _check_options(name, rule, options)
    if rows is None:
        rows = next((len(given) for given in (labels, values) if given is not None), None)
    given = {"rows": rows, "labels": labels, "values": values}[rule.reads]
    if given is None:
        raise ConfigError(f"partition '{name}' divides by {rule.reads}, which this data has not")
    if rule.random:
        options["rng"] = rng
    parts = rule.function(given, clients, **options)
    rules.check_partition(parts, sum(map(len, parts)))
    return parts


def _check_options(name: str, rule: Rule, options: Mapping[str, Any]) -> None:
    known = rule.required + rule.optional
    for option, value in options.items():
        if option not in known:
            hint = nearest(option, known) if known else " (it takes none)"
            raise ConfigError(f"partition '{name}': unknown option '{option}'{hint}")
        whole = option != "alpha"
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            raise ConfigError(
                f"partition '{name}': {option} is {value!r}, expected a "
                f"{'whole number' if whole else 'number'}"
            )
    for option in rule.required:
        if option not in options:
            raise ConfigError(f"partition '{name}': option '{option}' is missing; give a number")

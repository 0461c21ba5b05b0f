"""The twin of a run: the same configuration with canaries in it, and what it claims to cost."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

from fedalt.alternation.parse import parse_schedule
from fedalt.alternation.phase import Phase
from fedalt.audit.client_canaries import MARK
from fedalt.errors import ConfigError
from fedalt.privacy.account import Scope
from fedalt.privacy.ledger import FILE
from fedalt.privacy.replay import Replay, replay
from fedalt.privacy.stages import leaves
from fedalt.privacy.terms import terms_of
from fedalt.runs.folder import RunFolder
from fedalt.task import Task


def phases_of(config: Mapping[str, Any]) -> list[Phase]:
    """Return a configuration's phases."""
    return list(parse_schedule(config["phases"], config["schedule"]).phases())


def unit_of(phases: Sequence[Phase]) -> str:
    """Return the unit to audit: the largest that some phase protects.

    Raises :class:`ConfigError` where nobody is protected.
    """
    found = {leaf.privacy.unit for phase in phases for leaf in leaves(phase) if leaf.privacy}
    for unit in ("client", "user", "record"):
        if unit in found:
            return unit
    raise ConfigError("no phase has a privacy spec: there is no claim to audit")


def twin_config(
    config: Mapping[str, Any], task: Task, phases: Sequence[Phase], unit: str
) -> dict[str, Any]:
    """Return a configuration with the same mechanisms, whose every round the audit can see.

    δ is the scenario's own, however many canaries are added; sites measure nothing, and rows are
    taken one at a time by functorch. Canaries that are clients stay out of phases that do not
    protect clients.
    """
    terms = terms_of(config, phases, task.sites)
    if terms is None:
        raise ConfigError("no phase has a privacy spec: there is no claim to audit")
    twin: dict[str, Any] = json.loads(json.dumps(config))
    twin |= {"name": f"{config['name']}-audit", "compare": [], "compared": {}, "report": None}
    twin["evaluate"] |= {"clients_every": 0, "server_every": 1, "each": False}
    twin["privacy"]["delta"] = terms.delta
    # Canaries answer in this process.
    twin["engine"]["workers"] = 1
    if unit == "client":
        twin["phases"] = {name: _without(data) for name, data in twin["phases"].items()}
    else:
        for part in ("phases", "schedule"):
            twin[part] = _one_by_one(twin[part])
    return twin


def _without(phase: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a phase's settings; canaries stay out where no client is protected."""
    data = dict(phase or {})
    spec = data.get("privacy")
    if isinstance(spec, Mapping) and spec.get("unit", "client") == "client":
        return data
    clients = dict(data.get("clients") or {})
    former = clients.get("unless") or []
    former = [former] if isinstance(former, Mapping) else list(former)
    return {**data, "clients": {**clients, "unless": [*former, {MARK: "yes"}]}}


def _one_by_one(data: Any) -> Any:
    """Return settings whose specs for records and users take gradients by functorch."""
    if isinstance(data, list):
        return [_one_by_one(item) for item in data]
    if not isinstance(data, dict):
        return copy.copy(data)
    changed = {key: _one_by_one(value) for key, value in data.items()}
    spec = changed.get("privacy")
    if isinstance(spec, dict) and spec.get("unit", "client") != "client":
        changed["privacy"] = {**spec, "per_sample": "functorch"}
    return changed


def ledger_claim(folder: RunFolder, unit: str) -> tuple[float, float]:
    """Return the ε that a run's ledger states for a unit, at which δ.

    Raises :class:`ConfigError` where the run spent nothing on that unit.
    """
    state = Replay()
    for _, now in replay(folder.path / FILE):
        state = now
    if state.account is None or state.terms is None or unit not in state.account.units():
        raise ConfigError(f"{folder.path}: its ledger holds no charge for a {unit}")
    delta = state.terms.delta
    return state.account.worst(Scope(unit), delta, tight=True).epsilon, delta

"""What is measured of a finished run, stored beside it so that it is computed once.

The metrics of the last round, the rounds and the bytes are always there; a scenario adds its own
with a function ``(task, run) -> {name: value}``. Values are numbers; a text (where the data came
from, say) is told beneath the table.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from fedalt.errors import ConfigError, FedaltError, nearest
from fedalt.runs.files import write_json
from fedalt.runs.report import Finished
from fedalt.task import Task

FILE = "measures.json"
PACKAGE = "fedalt.scenarios."
RESULTS = {"rounds": "round", "bytes_up": "bytes_up", "bytes_down": "bytes_down"}
"""Measures that every run's result has: name to key."""

Measure = Callable[[Task, Finished], Mapping[str, Any]]


@dataclass(frozen=True)
class Measured:
    """A run's measures by name, facts in words, and the hash of its weights."""

    values: Mapping[str, float]
    facts: Mapping[str, str] = field(default_factory=dict)
    weights_sha256: str = ""


def check_reference(reference: Any) -> None:
    """Raise :class:`ConfigError` if a text cannot name a scenario's function."""
    if (
        not isinstance(reference, str)
        or not reference.startswith(PACKAGE)
        or reference.count(":") != 1
        or not all(reference.split(":"))
    ):
        raise ConfigError(
            f"claim.measure={reference!r}: a function of an installed scenario expected, such as "
            f"{PACKAGE}NAME.measures:measure, or null for the metrics of the last round alone"
        )


def find_measure(reference: str) -> Measure:
    """Import a scenario's function; raises :class:`ConfigError` if it is not there."""
    check_reference(reference)
    module_name, _, name = reference.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"claim.measure={reference!r}: {error}") from error
    found = getattr(module, name, None)
    if not callable(found):
        public = [n for n in vars(module) if not n.startswith("_")]
        raise ConfigError(
            f"claim.measure={reference!r}: no function '{name}'{nearest(name, public)}"
        )
    measure: Measure = found
    return measure


def version_of(reference: str | None) -> str | None:
    """Name a measure's function and its file's contents: measures of another are not its."""
    if reference is None:
        return None
    spec = find_spec(reference.partition(":")[0])
    source = Path(spec.origin).read_bytes() if spec is not None and spec.origin else b""
    return f"{reference} {hashlib.sha256(source).hexdigest()[:16]}"


def measure_run(reference: str | None, task: Task, run: Finished) -> Measured:
    """Measure a finished run; raises :class:`ConfigError` for a value that is no number."""
    found: dict[str, Any] = {name: run.result[key] for name, key in RESULTS.items()}
    found |= run.result["metrics"]
    if reference is not None:
        told = find_measure(reference)(task, run)
        if not isinstance(told, Mapping):
            raise ConfigError(f"{reference} returned {told!r}; a mapping of names expected")
        found |= told
    values, facts = dict[str, float](), dict[str, str]()
    for name, value in found.items():
        if isinstance(value, str):
            facts[name] = value
        elif isinstance(value, int | float | np.number):
            values[name] = float(value)
        else:
            raise ConfigError(f"{reference}: measure '{name}' is {value!r}; a number expected")
    return Measured(values, facts, run.result["weights_sha256"])


def store(folder: Path, version: str | None, measured: Measured) -> None:
    """Write a run's measures beside it."""
    data = {"version": version, "values": dict(measured.values), "facts": dict(measured.facts)}
    write_json(folder / FILE, {**data, "weights_sha256": measured.weights_sha256})


def stored(folder: Path, version: str | None) -> Measured | None:
    """Read a run's measures, or None where none lie that this version of the function made."""
    try:
        data = json.loads((folder / FILE).read_text())
        if data["version"] != version:
            return None
        return Measured(data["values"], data["facts"], data["weights_sha256"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise FedaltError(
            f"{folder / FILE} is damaged ({error!r}); delete it, and it is made again"
        ) from error

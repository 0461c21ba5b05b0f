"""Checkpoints: one file a commit, holding everything a run needs to go on.

Model, bank, client states and strategy states are safetensors; round, history, schedule
and ledger state are JSON in its header, with a SHA-256 over all of it. A commit is:
temporary file, fsync, rename. A damaged newest checkpoint falls back to the one before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from safetensors.numpy import load, save

from fedalt.errors import CheckpointError
from fedalt.hashing import arrays_hash, canonical_json, json_hash
from fedalt.runs.files import write_atomic

FORMAT = 1
Named = dict[str, np.ndarray]


@dataclass(frozen=True)
class Snapshot:
    """A run after a committed round.

    ``clients`` maps site index to its persistent arrays, ``strategies`` phase name to the
    strategy's; ``facts`` is plain data: history, schedule state, strategy scalars, ledger
    state, position in the event log.
    """

    round: int
    model: Named
    bank: Mapping[str, Named] = field(default_factory=dict)
    clients: Mapping[int, Named] = field(default_factory=dict)
    strategies: Mapping[str, Named] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


def write_checkpoint(folder: Path, snapshot: Snapshot, keep: int = 2) -> Path:
    """Commit a snapshot and prune all but the newest ``keep`` checkpoints."""
    arrays = _flatten(snapshot)
    facts = canonical_json(dict(snapshot.facts))
    header = {
        "format": str(FORMAT),
        "round": str(snapshot.round),
        "facts": facts,
        "sha256": _digest(snapshot.round, facts, arrays),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"round-{snapshot.round:06d}.safetensors"
    contiguous = {name: np.asarray(values, order="C") for name, values in arrays.items()}
    write_atomic(path, save(contiguous, metadata=header))
    _prune(folder, path, keep)
    return path


def _prune(folder: Path, newest: Path, keep: int) -> None:
    """Keep the newest ``keep``; later ones were passed over as damaged when the run resumed."""
    found = sorted(folder.glob("round-*.safetensors"))
    place = found.index(newest)
    for old in found[: max(0, place + 1 - keep)] + found[place + 1 :]:
        old.unlink()


def read_checkpoint(path: Path) -> Snapshot:
    """Read one checkpoint.

    Raises :class:`CheckpointError` if it is truncated, altered or of another format.
    """
    try:
        data = path.read_bytes()
        arrays = load(data)
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])["__metadata__"]
        number, facts, digest = int(header["round"]), header["facts"], header["sha256"]
    except Exception as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error}") from error
    if header.get("format") != str(FORMAT):
        raise CheckpointError(
            f"checkpoint {path} has format {header.get('format')}, this version reads {FORMAT}"
        )
    if digest != _digest(number, facts, arrays):
        raise CheckpointError(f"checkpoint {path} is damaged: its checksum does not match")
    return _unflatten(number, json.loads(facts), arrays)


def newest_checkpoint(folder: Path) -> tuple[Snapshot | None, list[str]]:
    """Return the newest sound checkpoint, and a note for each damaged one passed over."""
    notes: list[str] = []
    for path in sorted(folder.glob("round-*.safetensors"), reverse=True):
        try:
            return read_checkpoint(path), notes
        except CheckpointError as error:
            notes.append(str(error))
    return None, notes


def _digest(number: int, facts: str, arrays: Mapping[str, np.ndarray]) -> str:
    return json_hash([FORMAT, number, facts, arrays_hash(arrays)])


def _flatten(snapshot: Snapshot) -> Named:
    groups: list[tuple[str, Mapping[str, np.ndarray]]] = [("model", snapshot.model)]
    groups += [(f"bank:{_quoted(branch)}", a) for branch, a in snapshot.bank.items()]
    groups += [(f"client:{site}", arrays) for site, arrays in snapshot.clients.items()]
    groups += [(f"strategy:{_quoted(name)}", a) for name, a in snapshot.strategies.items()]
    return {
        f"{group}|{name}": values for group, arrays in groups for name, values in arrays.items()
    }


def _quoted(label: str) -> str:
    """Hide the separator in names that users chose."""
    return label.replace("%", "%25").replace("|", "%7C")


def _unflatten(number: int, facts: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> Snapshot:
    model: Named = {}
    bank: dict[str, Named] = {}
    clients: dict[int, Named] = {}
    strategies: dict[str, Named] = {}
    # Names sort as they were written in safetensors, not as the model orders them; the model's
    # own order is a fact.
    for key, values in arrays.items():
        group, _, name = key.partition("|")
        kind, _, label = group.partition(":")
        label = unquote(label)
        if kind == "model":
            model[name] = values
        elif kind == "bank":
            bank.setdefault(label, {})[name] = values
        elif kind == "client":
            clients.setdefault(int(label), {})[name] = values
        else:
            strategies.setdefault(label, {})[name] = values
    ordered = {name: model[name] for name in facts.get("model_order", sorted(model))}
    return Snapshot(number, ordered, bank, clients, strategies, facts)

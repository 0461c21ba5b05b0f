"""Checkpoints: one file a commit that holds, or vouches for, everything a run needs to go on.

Model, bank and strategy states are safetensors; round, schedule and ledger state are JSON in
its header, with a SHA-256 over all of it. What would make every commit as large as the run is
long lies beside it, written once: client states in segments, history and ledger counts in the
journal, each named in the header with its own SHA-256. A commit is: temporary file, fsync,
rename. A checkpoint that is damaged, or needs what is damaged, falls back to the one before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from safetensors.numpy import load, save

from fedalt.errors import CheckpointError
from fedalt.hashing import arrays_hash, canonical_json, json_hash
from fedalt.runs.files import write_atomic
from fedalt.runs.journal import JournalRef, replay
from fedalt.runs.segments import Named, SegmentRef
from fedalt.runs.states import SegmentedStates

FORMAT = 2
READABLE = (1, 2)
"""Format 1 has neither segments nor a journal: everything is in the file."""
PATTERN = "round-*.safetensors"


@dataclass(frozen=True)
class Snapshot:
    """A run after a committed round.

    ``clients`` maps site index to its persistent arrays, ``strategies`` phase name to the
    strategy's; ``facts`` is plain data: history, schedule state, strategy scalars, ledger
    state, position in the event log.

    With ``segments`` the client states are in these files instead, and ``clients`` of a snapshot
    that was read looks into them. With a ``journal``, what it holds is left out of the facts
    when written, and in them when read.
    """

    round: int
    model: Named
    bank: Mapping[str, Named] = field(default_factory=dict)
    clients: Mapping[int, Named] = field(default_factory=dict)
    strategies: Mapping[str, Named] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    segments: tuple[SegmentRef, ...] = ()
    journal: JournalRef | None = None


def write_checkpoint(folder: Path, snapshot: Snapshot, keep: int = 2) -> Path:
    """Commit a snapshot and prune all but the newest ``keep`` checkpoints."""
    arrays = _flatten(snapshot)
    header = {
        "format": str(FORMAT),
        "round": str(snapshot.round),
        "facts": canonical_json(dict(snapshot.facts)),
        "beside": canonical_json(
            {
                "segments": [[ref.name, ref.sha256] for ref in snapshot.segments],
                "journal": asdict(snapshot.journal) if snapshot.journal else None,
            }
        ),
    }
    header["sha256"] = _digest(header, arrays)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PATTERN.replace("*", f"{snapshot.round:06d}")
    contiguous = {name: np.asarray(values, order="C") for name, values in arrays.items()}
    write_atomic(path, save(contiguous, metadata=header))
    _prune(folder, path, keep)
    return path


def _prune(folder: Path, newest: Path, keep: int) -> None:
    """Keep the newest ``keep``; later ones were passed over as damaged when the run resumed."""
    found = sorted(folder.glob(PATTERN))
    place = found.index(newest)
    for old in found[: max(0, place + 1 - keep)] + found[place + 1 :]:
        old.unlink()


def read_checkpoint(path: Path) -> Snapshot:
    """Read one checkpoint and what it refers to.

    Raises :class:`CheckpointError` if it is truncated, altered or of another format, or if a
    segment or the journal is.
    """
    try:
        data = path.read_bytes()
        arrays = load(data)
        header = _header(data)
        number, facts, digest = int(header["round"]), header["facts"], header["sha256"]
        known = int(header["format"]) in READABLE
    except Exception as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error}") from error
    if not known:
        raise CheckpointError(
            f"checkpoint {path} has format {header['format']}, this version reads "
            f"{' and '.join(map(str, READABLE))}"
        )
    if digest != _digest(header, arrays):
        raise CheckpointError(f"checkpoint {path} is damaged: its checksum does not match")
    segments, journal = _beside(header)
    told: dict[str, Any] = json.loads(facts)
    try:
        if journal is not None:
            replay(path.parent, journal, told)
        states = SegmentedStates.open(path.parent, segments) if segments else None
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {path} needs more than there is: {error}") from error
    snapshot = _unflatten(number, told, arrays)
    clients = snapshot.clients if states is None else states
    return replace(snapshot, clients=clients, segments=segments, journal=journal)


def segments_of(path: Path) -> tuple[SegmentRef, ...]:
    """Return what a checkpoint refers to, by its header alone; nothing if that is damaged."""
    try:
        with path.open("rb") as handle:
            size = handle.read(8)
            end = min(int.from_bytes(size, "little"), path.stat().st_size)
            return _beside(_header(size + handle.read(end)))[0]
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def newest_checkpoint(folder: Path) -> tuple[Snapshot | None, list[str]]:
    """Return the newest sound checkpoint, and a note for each damaged one passed over."""
    notes: list[str] = []
    for path in sorted(folder.glob(PATTERN), reverse=True):
        try:
            return read_checkpoint(path), notes
        except CheckpointError as error:
            notes.append(str(error))
    return None, notes


def _header(data: bytes) -> dict[str, str]:
    size = int.from_bytes(data[:8], "little")
    header: dict[str, str] = json.loads(data[8 : 8 + size])["__metadata__"]
    return header


def _beside(header: Mapping[str, str]) -> tuple[tuple[SegmentRef, ...], JournalRef | None]:
    """Return the segments and the stretch of the journal that a header names."""
    beside = json.loads(header.get("beside", "{}"))
    segments = tuple(SegmentRef(*pair) for pair in beside.get("segments", ()))
    journal = beside.get("journal")
    return segments, JournalRef(**journal) if journal else None


def _digest(header: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> str:
    said = [int(header["format"]), int(header["round"]), header["facts"]]
    if said[0] != 1:
        said.append(header.get("beside", ""))
    return json_hash([*said, arrays_hash(arrays)])


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

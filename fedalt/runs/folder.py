"""The folder of one run: where everything about it lies.

config.json        the resolved configuration and its hash
environment.json   versions, machine, command line
events.jsonl       what happened, a line an event
checkpoints/       committed rounds
status.json        running, finished, stopped or failed, with the process that runs it
result.json        final round, hash of the weights, metrics, seconds
report/            tables and pictures
variants/NAME/     the same for each method compared with
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from fedalt.errors import CheckpointError, ConfigError
from fedalt.runs.files import write_json

PACKAGES = ("fedalt", "flwr", "torch", "opacus", "grpcio", "numpy", "hydra-core", "protobuf")

_ATTEMPTS = 10
"""How often a lock is tried for before it counts as taken."""


@dataclass(frozen=True)
class RunFolder:
    """Paths and small files of a run."""

    path: Path

    @property
    def name(self) -> str:
        """The run's name: its folder's."""
        return self.path.name

    @property
    def checkpoints(self) -> Path:
        """Where committed rounds lie."""
        return self.path / "checkpoints"

    @property
    def events(self) -> Path:
        """The event log."""
        return self.path / "events.jsonl"

    @property
    def report(self) -> Path:
        """Where tables and pictures lie."""
        return self.path / "report"

    def variant(self, name: str) -> RunFolder:
        """The folder of a method that this run is compared with."""
        return RunFolder(self.path / "variants" / name)

    def create(self, config: Mapping[str, Any]) -> None:
        """Make the folder with its configuration and environment.

        Raises :class:`ConfigError` if a run lies there already or the place is read-only.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            # Of two runs that choose one name at the same time, the lock lets one have it.
            with self.lock():
                if (self.path / "config.json").exists():
                    raise ConfigError(
                        f"{self.path} already holds a run; name another folder with out=…, "
                        f"or take it up with: fedalt runs resume {self.path}"
                    )
                write_json(self.path / "environment.json", _environment())
                write_json(self.path / "config.json", config)
        except OSError as error:
            raise ConfigError(
                f"the run folder {self.path} cannot be written ({error.strerror}); "
                "name another place with out=…"
            ) from error

    def config(self) -> dict[str, Any]:
        """Read the resolved configuration; raises :class:`CheckpointError` if there is none."""
        return self._read("config.json")

    def result(self) -> dict[str, Any] | None:
        """Read the result, or None while there is none."""
        return self._read("result.json") if (self.path / "result.json").exists() else None

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Store the result of a run that came to its end."""
        write_json(self.path / "result.json", result)

    def set_status(self, state: str, **facts: Any) -> None:
        """Store what the run is doing and which process does it."""
        write_json(self.path / "status.json", {"state": state, "pid": os.getpid(), **facts})

    def status(self) -> dict[str, Any]:
        """Read the status; a run whose process is gone is ``interrupted``."""
        path = self.path / "status.json"
        if not path.exists():
            return {"state": "new"}
        status: dict[str, Any] = json.loads(path.read_text())
        if status["state"] == "running" and not self.locked():
            status["state"] = "finished" if self.result() is not None else "interrupted"
        return status

    def locked(self) -> bool:
        """Say whether a process holds the run."""
        try:
            # For reading and shared: others may look at the same time, a read-only disk too.
            with (self.path / ".lock").open("rb") as handle:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run alone; the lock ends with the process, however it ends.

        Raises :class:`CheckpointError` if another process holds it.
        """
        with (self.path / ".lock").open("w") as handle:
            _acquire(handle, f"run {self.path} is in use by another process")
            yield

    def _read(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            data: dict[str, Any] = json.loads(path.read_text())
        except FileNotFoundError as error:
            raise CheckpointError(f"{self.path} holds no run ({name} is missing)") from error
        except json.JSONDecodeError as error:
            raise CheckpointError(f"{path} is damaged: {error}") from error
        return data


def _acquire(handle: IO[Any], refusal: str) -> None:
    """Lock an open file, or raise :class:`CheckpointError`."""
    for attempt in range(_ATTEMPTS):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if attempt == _ATTEMPTS - 1:
                raise CheckpointError(refusal) from error
        # Someone who only asks for the status holds it for a moment.
        time.sleep(0.02)


def list_runs(root: Path) -> list[RunFolder]:
    """Return the runs directly beneath a folder, oldest first; those of one moment by name."""
    found = [RunFolder(path.parent) for path in root.glob("*/config.json")]
    return sorted(found, key=lambda run: ((run.path / "config.json").stat().st_mtime, run.name))


def new_name(scenario: str, seed: int) -> str:
    """Name a new run by scenario, time and seed."""
    return f"{scenario}-{time.strftime('%Y%m%d-%H%M%S')}-s{seed}"


def _environment() -> dict[str, Any]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": versions,
        "command": sys.argv,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }

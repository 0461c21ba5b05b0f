"""Scenarios: folders with a YAML, found by name in this package or by path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fedalt.config import FILE, load_config
from fedalt.errors import ConfigError, nearest

PACKAGE = "fedalt.scenarios"


@dataclass(frozen=True)
class Scenario:
    """A scenario's name and the folder that holds its YAML."""

    name: str
    folder: Path

    def config(self, overrides: Sequence[str] = ()) -> dict[str, Any]:
        """Resolve its configuration with overrides."""
        return load_config(self.folder, overrides)

    def summary(self) -> str:
        """Return the one line that says what it shows."""
        import yaml

        return str(
            yaml.safe_load((self.folder / FILE).read_text(encoding="utf-8")).get("summary", "")
        )


def installed_scenarios() -> dict[str, Scenario]:
    """Return the scenarios that come with fedalt, by name."""
    spec = find_spec(PACKAGE)
    places = list(spec.submodule_search_locations or []) if spec else []
    return {
        path.parent.name: Scenario(path.parent.name, path.parent)
        for place in places
        for path in sorted(Path(place).glob(f"*/{FILE}"))
    }


def find_scenario(name: str) -> Scenario:
    """Find a scenario by name, or by the path of a folder that holds a scenario.yaml.

    Raises :class:`ConfigError` with the nearest name.
    """
    known = installed_scenarios()
    if name in known:
        return known[name]
    folder = Path(name)
    if (folder / FILE).is_file():
        return Scenario(folder.resolve().name, folder)
    if folder.is_dir():
        raise ConfigError(f"the folder '{name}' holds no {FILE}; see: fedalt scenarios --help")
    raise ConfigError(f"unknown scenario '{name}'{nearest(name, known)}; see: fedalt scenarios")

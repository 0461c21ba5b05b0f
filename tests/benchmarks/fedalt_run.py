"""One run of fedalt under the meter."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from measure import Meter

from fedalt.runs.folder import RunFolder
from fedalt.runs.simulate import simulate


def run(config: Mapping[str, Any], task: Any, meter: Meter) -> dict[str, Any]:
    """Simulate, note the rounds' ends and return what the run says of its engine's mode."""
    facts: dict[str, Any] = {}

    def hear(event: Mapping[str, Any]) -> None:
        if event["event"] == "round":
            meter.round()
        elif event["event"] == "engine":
            facts["mode"] = ", ".join(sorted(_modes(event["facts"])))

    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(Path(place) / "run")
        folder.create(config)
        simulate(config, folder, lambda spec: task, [hear])
        meter.finish()
    return facts


def _modes(chosen: Any) -> set[str]:
    """Return the modes named anywhere in what the engine says it chose."""
    if not isinstance(chosen, Mapping):
        return set()
    own = {str(chosen["mode"])} if isinstance(chosen.get("mode"), str) else set()
    return own.union(*(_modes(value) for value in chosen.values()))

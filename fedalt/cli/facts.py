"""Where a run stands, as its folder tells: for ``runs list`` and ``runs show``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fedalt.errors import CheckpointError
from fedalt.runs.folder import RunFolder

FIGURES = "figures.json"
"""Written last, when a report is complete: the pictures' paths within the folder."""


def left_to_do(folder: RunFolder, config: Mapping[str, Any]) -> list[str]:
    """Return what a run still has to do: rounds, variants by name, the report."""
    left = [] if folder.result() is not None else ["rounds"]
    compared = config.get("compared", {})
    left += [name for name in compared if folder.variant(name).result() is None]
    if config.get("report") and not (folder.report / FIGURES).exists():
        left.append("report")
    return left


def facts_of(folder: RunFolder) -> dict[str, Any]:
    """Return a run's name, state, rounds, seconds and hash; ``note`` says what is amiss.

    ``state`` is new, running, finished, unfinished (its rounds are done, but not the methods it
    is compared with or its report), stopped, failed, interrupted or damaged.
    """
    facts: dict[str, Any] = dict.fromkeys(
        ("name", "state", "round", "rounds", "seconds", "weights_sha256", "note")
    )
    facts["name"] = folder.name
    try:
        config, result, status = folder.config(), folder.result() or {}, folder.status()
        left = left_to_do(folder, config)
        facts["rounds"] = config["rounds"]
    except (CheckpointError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        return {**facts, "state": "damaged", "note": str(error)}
    state = status["state"]
    if state == "finished" and left:
        state = "unfinished"
    note = status.get("error")
    if result and left:
        note = f"{'still to do' if state != 'running' else 'doing'}: {', '.join(left)}"
    return {
        **facts,
        "state": state,
        "round": result.get("round", _last_round(folder)),
        "seconds": result.get("seconds"),
        "weights_sha256": result.get("weights_sha256"),
        "note": note,
    }


def _last_round(folder: RunFolder) -> int | None:
    """Tell the last committed round by its file's name: a list need not read the weights."""
    names = sorted(path.stem for path in folder.checkpoints.glob("round-*.safetensors"))
    number = names[-1].removeprefix("round-") if names else ""
    return int(number) if number.isdigit() else None

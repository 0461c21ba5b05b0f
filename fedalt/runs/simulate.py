"""A simulation: a Flower ServerApp and ClientApp on the engine in this process.

Server and clients are found by name, as Flower finds an app's components, so that what both
share imports neither.
"""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from flwr.app import Context, RecordDict

from fedalt.build import TaskCache
from fedalt.grids.local import LocalGrid
from fedalt.grids.memory import keep_freed_memory
from fedalt.grids.store import MIB, StateStore
from fedalt.runs.events import Sink
from fedalt.runs.folder import RunFolder
from fedalt.seeds import Seeds

SERVER = "fedalt.server.app:create_app"
CLIENT = "fedalt.clients.app:create_app"

CLIENT_DEFAULTS = {"device": "cpu", "mode": "sequential", "precision": "float32"}
"""What clients are told where an engine's settings leave it out."""


def simulate(
    config: Mapping[str, Any],
    folder: RunFolder,
    tasks: TaskCache | None = None,
    sinks: Sequence[Sink] = (),
    client: str = CLIENT,
) -> dict[str, Any]:
    """Run a configuration to its end in ``folder`` and return its result.

    A folder that holds checkpoints is taken up where it stood. ``tasks`` lets several runs
    share loaded data; ``client`` names what makes the ClientApp, which an audit's twin changes.
    """
    load_task = tasks or TaskCache()
    task = load_task(config["task"])
    quiet_flower()
    keep_freed_memory()
    use_threads(int(config["engine"].get("threads", 1)))
    server_app = _load(SERVER)(load_task, tuple(sinks))
    client_app = _load(client)(load_task)
    limit = int(config["engine"].get("state_limit_mb", 512) * MIB)
    grid = LocalGrid(
        client_app,
        len(task.sites),
        client_settings(config),
        Seeds(config["seed"]),
        sites=task.sites,
        states=StateStore(folder.checkpoints, limit),
    )
    context = Context(
        run_id=grid.run.run_id,
        node_id=0,
        node_config={},
        state=RecordDict(),
        run_config={"config": json.dumps(config), "folder": str(folder.path)},
    )
    try:
        server_app(grid, context)
    finally:
        client_app.close()
    return folder.result() or {}


def client_settings(config: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """Return what ClientApps read as ``run_config``: the task, and the engine's settings."""
    settings: dict[str, bool | int | float | str] = dict(CLIENT_DEFAULTS)
    for key, value in config["engine"].items():
        if isinstance(value, bool | int | float | str):
            settings[key] = value
    # How much is ahead decides whether a faster mode is worth looking for.
    return {**settings, "task": json.dumps(config["task"]), "rounds": config["rounds"]}


def use_threads(count: int) -> None:
    """Let torch use so many threads: what small steps wait for is other threads, not work."""
    import torch

    torch.set_num_threads(count)


def quiet_flower() -> None:
    """Leave only Flower's warnings: the loop's own events say what happens in a round."""
    logging.getLogger("flwr").setLevel(logging.WARNING)


def _load(reference: str) -> Any:
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)

"""Objects from configuration: only targets on the allow-list can be built.

A ``_target_`` names a class or function. It must be *defined* in an allowed package: the
check is on the object found, not on the text, so that ``fedalt.x.os.system`` is refused.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from fedalt.errors import ConfigError, FedaltError, nearest
from fedalt.hashing import canonical_json
from fedalt.task import Task

ALLOWED = ("fedalt", "flwr.serverapp.strategy")


def locate(target: str) -> Callable[..., Any]:
    """Import what ``package.module.name`` names, if it may be built.

    Raises :class:`ConfigError` for a name that does not exist or is not allowed.
    """
    module_name, _, name = target.rpartition(".")
    if not any(module_name == p or module_name.startswith(p + ".") for p in ALLOWED):
        raise ConfigError(
            f"'{target}' may not be built: allowed are {', '.join(ALLOWED)}; a task of your own "
            "lives in scenarios/NAME of the checkout, as fedalt.scenarios.NAME.task.CLASS"
        )
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"'{target}' cannot be imported: {error}") from error
    found = getattr(module, name, None)
    if found is None:
        public = [n for n in vars(module) if not n.startswith("_")]
        raise ConfigError(f"'{module_name}' has no '{name}'{nearest(name, public)}")
    home = getattr(found, "__module__", "") or ""
    if not callable(found) or not any(home == p or home.startswith(p + ".") for p in ALLOWED):
        raise ConfigError(f"'{target}' may not be built: it is defined in '{home or 'no module'}'")
    built: Callable[..., Any] = found
    return built


def build(spec: Mapping[str, Any], where: str) -> Any:
    """Call a spec's ``_target_`` with the spec's other entries as keyword arguments.

    Raises :class:`ConfigError` naming ``where`` and the argument that does not fit.
    """
    if "_target_" not in spec:
        raise ConfigError(f"{where}: '_target_' is missing; it names what to build")
    target = locate(str(spec["_target_"]))
    return construct(target, {k: v for k, v in spec.items() if k != "_target_"}, where)


def construct(target: Callable[..., Any], values: Mapping[str, Any], where: str) -> Any:
    """Call a target with named settings.

    Raises :class:`ConfigError` naming ``where`` and the setting that does not fit.
    """
    signature = inspect.signature(target)
    known = [p.name for p in signature.parameters.values() if p.kind != p.VAR_POSITIONAL]
    for key in values:
        if key not in known:
            raise ConfigError(f"{where}: unknown setting '{key}'{nearest(key, known)}")
    try:
        signature.bind(**values)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from error
    try:
        return target(**values)
    except FedaltError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error


class TaskCache:
    """Builds a task once per configuration; both sides of a simulation share one."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}

    def __call__(self, spec: Mapping[str, Any]) -> Task:
        """Return the task of a spec."""
        key = canonical_json(spec)
        if key not in self._tasks:
            task = build(spec, "task")
            if not isinstance(task, Task):
                raise ConfigError(
                    f"task: {spec['_target_']} makes a {type(task).__name__}, no Task"
                )
            self._tasks[key] = task
        return self._tasks[key]

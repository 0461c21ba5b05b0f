"""Configuration: a scenario's YAML and the user's overrides, resolved and checked.

Hydra reads the YAML and the overrides; the top level is typed by :class:`Settings`, and an
unknown key is refused with the nearest match. What comes out is plain data, hashed and
stored with the run, and the same data makes the same run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from fedalt.errors import ConfigError, nearest

FILE = "scenario.yaml"


@dataclass
class Evaluate:
    """How often the model is judged: by clients on their data, by the server on its own."""

    clients_every: int = 0
    server_every: int = 1


@dataclass
class Engine:
    """Which engine runs the federation, and on what device kernels compute."""

    name: str = "local"
    device: str = "cpu"
    timeout: float | None = None


@dataclass
class Checkpoint:
    """How often a round is committed to disk, and how many commits are kept."""

    every: int = 1
    keep: int = 2


@dataclass
class Settings:
    """Everything a run is made from; the keys of every scenario.yaml."""

    name: str = "???"
    summary: str = ""
    seed: int = 0
    rounds: int = 100
    quorum: float = 1.0
    vars: dict[str, Any] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)
    phases: dict[str, Any] = field(default_factory=dict)
    schedule: Any = None
    strategy: dict[str, Any] = field(default_factory=dict)
    evaluate: Evaluate = field(default_factory=Evaluate)
    engine: Engine = field(default_factory=Engine)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    tensorboard: bool = False
    progress: bool = True
    watch: list[str] = field(default_factory=list)
    out: str = "runs"
    report: str | None = None
    compare: list[str] = field(default_factory=list)
    variants: dict[str, Any] = field(default_factory=dict)


def load_config(folder: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Resolve ``folder``/scenario.yaml with Hydra overrides into plain, checked data.

    Raises :class:`ConfigError` naming the override or key and the nearest known one.
    """
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    named = _named_keys(folder)
    checked = [_checked_override(override, named) for override in overrides]
    try:
        with initialize_config_dir(config_dir=str(folder.resolve()), version_base="1.3"):
            composed = compose(config_name=FILE.removesuffix(".yaml"), overrides=checked)
        merged = OmegaConf.merge(OmegaConf.structured(Settings), composed)
        data: Any = OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "settings"
        raise ConfigError(f"{key}: {_first_line(error)} ({folder / FILE})") from error
    except Exception as error:
        raise ConfigError(f"{_explain(error)}") from error
    check_settings(data)
    return dict(data)


def check_settings(data: Mapping[str, Any]) -> None:
    """Check the values whose range matters; raises :class:`ConfigError` naming the key."""
    rules = [
        (data["rounds"] >= 1, "rounds", "at least 1"),
        (0.0 < data["quorum"] <= 1.0, "quorum", "in (0, 1], the share of replies that must count"),
        (data["seed"] >= 0, "seed", "not negative"),
        (data["checkpoint"]["every"] >= 1, "checkpoint.every", "at least 1"),
        (data["checkpoint"]["keep"] >= 1, "checkpoint.keep", "at least 1"),
        (data["evaluate"]["clients_every"] >= 0, "evaluate.clients_every", "0 (never) or more"),
        (data["evaluate"]["server_every"] >= 0, "evaluate.server_every", "0 (never) or more"),
        (data["engine"]["name"] == "local", "engine.name", "'local' (the engine in this process)"),
        (bool(data["schedule"]), "schedule", "given; it says which phases run when"),
        (bool(data["phases"]), "phases", "given; they say what each kind of work is"),
    ]
    for holds, key, wanted in rules:
        if not holds:
            value: Any = data
            for part in key.split("."):
                value = value[part]
            raise ConfigError(f"{key}={value!r}: must be {wanted}")
    for name in data["compare"]:
        if name not in data["variants"]:
            raise ConfigError(f"compare: unknown variant '{name}'{nearest(name, data['variants'])}")


def variant_overrides(config: Mapping[str, Any], name: str) -> list[str]:
    """Return the overrides that make a variant of a scenario.

    Raises :class:`ConfigError` if the scenario has no such variant.
    """
    if name not in config["variants"]:
        raise ConfigError(f"unknown variant '{name}'{nearest(name, config['variants'])}")
    return [str(item) for item in config["variants"][name] or []]


def _named_keys(folder: Path) -> set[str]:
    """Return all dotted keys that a scenario's YAML names."""
    import yaml

    path = folder / FILE
    try:
        data = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is missing") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds no settings")
    top = [item.name for item in fields(Settings)]
    for key in data:
        if key not in top:
            raise ConfigError(f"{path}: unknown key '{key}'{nearest(str(key), top)}")
    return set(_flat(data))


def _typed_keys() -> set[str]:
    """Return the keys that every scenario has, whether its YAML names them or not."""
    typed = {"evaluate": Evaluate, "engine": Engine, "checkpoint": Checkpoint}
    nested = {f"{key}.{item.name}" for key, kind in typed.items() for item in fields(kind)}
    return {item.name for item in fields(Settings)} | nested


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in data.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")


def _checked_override(override: str, named: set[str]) -> str:
    """Refuse an override of a key nobody knows; return it in the form Hydra wants."""
    if not re.match(r"^[~+]{0,2}[A-Za-z_]", override) or (
        "=" not in override and not override.startswith("~")
    ):
        raise ConfigError(f"'{override}' is no override; write key=value, such as seed=1")
    key = override.split("=", 1)[0]
    if key in named or override.startswith(("+", "~")):
        return override
    if key in _typed_keys():
        return f"++{override}"
    raise ConfigError(
        f"unknown override '{key}'{nearest(key, named | _typed_keys())}; "
        "to add a key that the scenario does not name, write +key=value"
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _explain(error: Exception) -> str:
    """Hydra wraps the real cause; say both on one line."""
    cause = error.__cause__
    return _first_line(error) + (f" ({_first_line(cause)})" if cause is not None else "")

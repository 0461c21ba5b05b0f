"""Configuration: a scenario's YAML and the user's overrides, resolved and checked.

Hydra reads the YAML and the overrides; the top level is typed by :class:`Settings`, and an
unknown key is refused with the nearest match. What comes out is plain data, hashed and
stored with the run, and the same data makes the same run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedalt.errors import ConfigError, nearest
from fedalt.modes import AUTO, Mode
from fedalt.overrides import check_overrides, flat_keys

if TYPE_CHECKING:
    from yaml import MarkedYAMLError

FILE = "scenario.yaml"
PRECISIONS = ("float32", "bfloat16")


@dataclass
class Evaluate:
    """How often the model is judged: by clients on their data, by the server on its own.

    With ``each``, the run's events also hold what every single client measured.
    """

    clients_every: int = 0
    server_every: int = 1
    each: bool = False


@dataclass
class Engine:
    """Which engine runs the federation, and how and on what device kernels compute.

    ``mode`` is how a cohort is computed: ``auto`` times the ways there are at the start of a run
    that is long enough, any other name settles it. ``precision`` is what torch's automatic mixed
    precision may round products to, ``workers`` the number of processes that share a cohort,
    ``threads`` those that torch uses in one process, and ``state_limit_mb`` how much of the
    clients' own state stays in memory.
    """

    name: str = "local"
    device: str = "cpu"
    timeout: float | None = None
    mode: str = "auto"
    precision: str = "float32"
    workers: int = 1
    threads: int = 1
    state_limit_mb: int = 512


@dataclass
class Checkpoint:
    """How often a round is committed to disk, and how many commits are kept."""

    every: int = 1
    keep: int = 2


@dataclass
class Privacy:
    """The terms on which phases with a privacy spec are accounted for.

    ``delta`` null is N^−1.1 for N units. ``relation`` is the neighbouring relation of every ε.
    ``budget`` maps a unit (``client``), or a unit and a block (``client/body``), to its largest
    ε, and ``policy`` says what happens at its end: ``stop``, ``skip-client`` or ``refuse``.
    ``disjoint`` names an attribute (``modality``, ``task``) of which each person has one value,
    fixed before any data were seen. With ``allow_unprotected`` a run may also release what no
    mechanism protects; its ε is then infinite, and the ledger says why.
    """

    delta: float | None = None
    relation: str = "add_remove"
    budget: dict[str, float] = field(default_factory=dict)
    policy: str = "stop"
    disjoint: str = ""
    allow_unprotected: bool = False


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
    privacy: Privacy = field(default_factory=Privacy)
    tensorboard: bool = False
    profile: bool = False
    progress: bool = True
    watch: list[str] = field(default_factory=list)
    out: str = "runs"
    report: str | None = None
    compare: list[str] = field(default_factory=list)
    variants: dict[str, Any] = field(default_factory=dict)
    claim: dict[str, Any] = field(default_factory=dict)


_TOP = tuple(item.name for item in fields(Settings))
_SHAPES: Mapping[str, type] = {
    **dict.fromkeys(("vars", "task", "phases", "strategy", "variants", "claim"), dict),
    **dict.fromkeys(("evaluate", "engine", "checkpoint", "privacy"), dict),
    **dict.fromkeys(("watch", "compare"), list),
}


def load_config(folder: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Resolve ``folder``/scenario.yaml with Hydra overrides into plain, checked data.

    Raises :class:`ConfigError` naming the override or key and the nearest known one.
    """
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import MarkedYAMLError

    path = folder / FILE
    data = _read_yaml(path)
    settings = _typed_keys() | _phase_keys(data.get("phases"))
    checked = check_overrides(overrides, flat_keys(data), settings)
    try:
        with initialize_config_dir(config_dir=str(folder.resolve()), version_base="1.3"):
            composed = compose(config_name=FILE.removesuffix(".yaml"), overrides=checked)
        plain = OmegaConf.to_container(composed, resolve=False)
        _check_shapes(plain, overrides, path)
        merged = OmegaConf.merge(OmegaConf.structured(Settings), composed)
        resolved: Any = OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "settings"
        raise ConfigError(
            f"{key}: {_first_line(error)} ({_origin(key, overrides, path)})"
        ) from error
    except ConfigError:
        raise
    except MarkedYAMLError as error:
        # Duplicate keys: OmegaConf's reader is stricter than the one that named the keys.
        raise ConfigError(_no_yaml(path, error)) from error
    except Exception as error:
        raise ConfigError(f"{_explain(error)} ({path})") from error
    check_settings(resolved)
    return dict(resolved)


def check_settings(data: Mapping[str, Any]) -> None:
    """Check the values whose range matters; raises :class:`ConfigError` naming the key."""
    rules = [
        (data["rounds"] >= 1, "rounds", "at least 1"),
        (0.0 < data["quorum"] <= 1.0, "quorum", "in (0, 1], the share of replies that must count"),
        (0 <= data["seed"] < 2**63, "seed", "from 0 to 2^63 − 1"),
        (data["checkpoint"]["every"] >= 1, "checkpoint.every", "at least 1"),
        (data["checkpoint"]["keep"] >= 1, "checkpoint.keep", "at least 1"),
        (data["evaluate"]["clients_every"] >= 0, "evaluate.clients_every", "0 (never) or more"),
        (data["evaluate"]["server_every"] >= 0, "evaluate.server_every", "0 (never) or more"),
        *_engine_rules(data["engine"]),
        (
            re.fullmatch(r"[\w.-]+", data["name"]) is not None,
            "name",
            "letters, digits, '.', '-' or '_'; it begins the name of the run's folder",
        ),
        (bool(data["out"].strip()), "out", "the folder beneath which runs are kept"),
        (bool(data["schedule"]), "schedule", "given; it says which phases run when"),
        (bool(data["phases"]), "phases", "given; they say what each kind of work is"),
    ]
    for holds, key, wanted in rules:
        if not holds:
            value: Any = data
            for part in key.split("."):
                value = value[part]
            raise ConfigError(f"{key}={value!r}: must be {wanted}")
    if data["engine"]["mode"] != AUTO:
        Mode.read(data["engine"]["mode"])
    for name, changes in data["variants"].items():
        if not isinstance(changes, list | None):
            raise ConfigError(
                f"variants.{name}: a list of overrides expected, such as [seed=1], "
                f"but here is {changes!r}"
            )
    for name in data["compare"]:
        if name not in data["variants"]:
            raise ConfigError(f"compare: unknown variant '{name}'{nearest(name, data['variants'])}")


def _engine_rules(engine: Mapping[str, Any]) -> list[tuple[bool, str, str]]:
    """Return (holds, key, what is wanted) for the engine's settings."""
    return [
        (engine["name"] == "local", "engine.name", "'local' (the engine in this process)"),
        (
            engine["timeout"] is None or engine["timeout"] > 0,
            "engine.timeout",
            "null (wait for ever) or more than 0 seconds",
        ),
        (engine["workers"] >= 1, "engine.workers", "at least 1"),
        (
            engine["threads"] >= 1 and (engine["threads"] == 1 or engine["workers"] == 1),
            "engine.threads",
            "at least 1, and 1 where engine.workers is more",
        ),
        (
            engine["workers"] == 1 or not str(engine["device"]).startswith("cuda"),
            "engine.workers",
            "1 on a GPU, whose state does not survive a fork",
        ),
        (engine["state_limit_mb"] >= 1, "engine.state_limit_mb", "at least 1 (MiB)"),
        (
            engine["precision"] in PRECISIONS,
            "engine.precision",
            " or ".join(f"'{name}'" for name in PRECISIONS),
        ),
    ]


def variant_overrides(config: Mapping[str, Any], name: str) -> list[str]:
    """Return the overrides that make a variant of a scenario.

    Raises :class:`ConfigError` if the scenario has no such variant.
    """
    if name not in config["variants"]:
        raise ConfigError(f"unknown variant '{name}'{nearest(name, config['variants'])}")
    return [str(item) for item in config["variants"][name] or []]


def _read_yaml(path: Path) -> dict[str, Any]:
    """Read a scenario's YAML as it stands, and refuse keys that no scenario has."""
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is missing") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is no UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from error
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_no_yaml(path, error)) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {_first_line(error)}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds no settings; it needs task, phases, schedule, strategy")
    for key in data:
        if key not in _TOP:
            raise ConfigError(f"{path}: unknown key '{key}'{nearest(str(key), _TOP)}")
    return data


def _no_yaml(path: Path, error: MarkedYAMLError) -> str:
    mark = error.problem_mark
    place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    context = f" {error.context}:" if error.context else ""
    return f"{path}{place} is no YAML:{context} {error.problem}"


def _check_shapes(data: Any, overrides: Sequence[str], path: Path) -> None:
    """Refuse a number or a list where settings have names of their own, and the reverse."""
    for key, value in data.items():
        wanted = _SHAPES.get(key)
        if wanted is not None and not isinstance(value, wanted):
            shape = "entries 'name: value'" if wanted is dict else "a list such as [a, b]"
            origin = _origin(key, overrides, path)
            raise ConfigError(f"{key}: {shape} expected, but here is {value!r} ({origin})")
    budget = data.get("privacy", {}).get("budget", {})
    interpolated = isinstance(budget, str) and budget.startswith("${")
    if not isinstance(budget, dict) and not interpolated:
        origin = _origin("privacy.budget", overrides, path)
        raise ConfigError(
            "privacy.budget: entries 'unit: ε' expected, such as {client: 8}, but here is "
            f"{budget!r} ({origin})"
        )


def _origin(key: str, overrides: Sequence[str], path: Path) -> str:
    """Say who set a key: the last override of it, else the file."""
    for text in reversed(overrides):
        if text.lstrip("+").split("=", 1)[0] == key:
            return f"set by '{text}'"
    return str(path)


def _typed_keys() -> set[str]:
    """Return the keys that every scenario has, whether its YAML names them or not."""
    typed = {
        "evaluate": Evaluate,
        "engine": Engine,
        "checkpoint": Checkpoint,
        "privacy": Privacy,
    }
    nested = {f"{key}.{item.name}" for key, kind in typed.items() for item in fields(kind)}
    return {*_TOP, *nested}


def _phase_keys(phases: Any) -> set[str]:
    """Return what may be set of a scenario's phases, whether its YAML names it or not."""
    from fedalt.alternation import Phase, Selector
    from fedalt.alternation.privacy_spec import PrivacySpec

    keys = [item.name for item in fields(Phase) if item.name != "name"]
    keys += [f"clients.{item.name}" for item in fields(Selector)]
    keys += [f"privacy.{item.name}" for item in fields(PrivacySpec)]
    names = phases if isinstance(phases, Mapping) else ()
    return {
        f"phases.{name}.{key}" for name in names for key in (*keys, "view.fraction", "view.slices")
    }


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]


def _explain(error: Exception) -> str:
    """Hydra wraps the real cause; say both on one line, and overrides as they were typed."""
    cause = error.__cause__
    said = _first_line(error).replace("override ++", "override ")
    return said + (f" ({_first_line(cause)})" if cause is not None else "")

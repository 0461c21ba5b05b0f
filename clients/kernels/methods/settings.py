"""The hyper-parameters of methods against forgetting, read from a phase and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fedalt.alternation.phase import Phase, Scalar
from fedalt.clients.kernels import optim
from fedalt.errors import ConfigError, nearest

FISHERS = ("empirical", "exact", "sampled")
_OWN = {
    "ewc_lambda": ("ewc_decay", "fisher", "fisher_rows"),
    "si_c": ("si_damping",),
    "lwf_alpha": ("lwf_temperature",),
    "replay_memory": ("replay_batch",),
    "agem_memory": ("agem_batch",),
}
"""What switches a method on, and what else belongs to it."""
KEYS = tuple(key for main, others in _OWN.items() for key in (main, *others))
"""What a phase's ``params`` may hold for methods."""


@dataclass(frozen=True)
class MethodSettings:
    """Which methods a phase uses, and how; a method whose first setting is 0 is off.

    EWC: ``ewc_lambda`` is λ; without ``ewc_decay`` every experience has a penalty of its own,
    with one, γ, there is one that decays. ``fisher`` is ``empirical`` (the task's loss, as its
    rows are labelled), ``exact`` (the mean over all classes, as the model rates them) or
    ``sampled`` (one class a row, drawn by the model), over ``fisher_rows`` of the former task
    (0: all). λ goes with a Fisher that is a mean over rows. SI: ``si_c`` is c, ``si_damping``
    ξ. LwF: ``lwf_alpha`` weighs the distillation, ``lwf_temperature`` is T. Experience replay
    and A-GEM: rows remembered, and how many of them each step draws (0: ``batch_size``).
    """

    ewc_lambda: float = 0.0
    ewc_decay: float | None = None
    fisher: str = "empirical"
    fisher_rows: int = 0
    si_c: float = 0.0
    si_damping: float = 0.1
    lwf_alpha: float = 0.0
    lwf_temperature: float = 2.0
    replay_memory: int = 0
    replay_batch: int = 0
    agem_memory: int = 0
    agem_batch: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the methods that are on."""
        return tuple(main.partition("_")[0] for main in _OWN if getattr(self, main))

    @classmethod
    def read(cls, phase: Phase, streamed: bool) -> MethodSettings | None:
        """Read ``phase.params``; None if no method is on.

        Raises :class:`ConfigError` for values that do not fit, for a setting of a method that
        is not there, and for a method without a stream.
        """
        params = phase.params
        for main, others in _OWN.items():
            for key in others:
                if key in params and main not in params:
                    raise ConfigError(f"params.{key} means nothing without params.{main}")
        found = cls(
            ewc_lambda=_real(params, "ewc_lambda", cls.ewc_lambda),
            ewc_decay=_share(params, "ewc_decay") if "ewc_decay" in params else None,
            fisher=_one_of(params, "fisher", cls.fisher),
            fisher_rows=_count(params, "fisher_rows"),
            si_c=_real(params, "si_c", cls.si_c),
            si_damping=_real(params, "si_damping", cls.si_damping, above=True),
            lwf_alpha=_real(params, "lwf_alpha", cls.lwf_alpha),
            lwf_temperature=_real(params, "lwf_temperature", cls.lwf_temperature, above=True),
            replay_memory=_count(params, "replay_memory"),
            replay_batch=_count(params, "replay_batch"),
            agem_memory=_count(params, "agem_memory"),
            agem_batch=_count(params, "agem_batch"),
        )
        if not found.names:
            return None
        if not streamed:
            raise ConfigError(
                f"params ask for {', '.join(found.names)}, which needs to know when a task ends: "
                "put the phase into a schedule's 'stream', and the params on the phase itself "
                "rather than on its inner phases"
            )
        return found


def _real(params: Mapping[str, Scalar], key: str, default: float, above: bool = False) -> float:
    value = optim.number(params, key, default)
    if value < 0.0 or (above and not value):
        least = "above 0" if above else "at least 0"
        raise ConfigError(f"params.{key} is {value:g}, but must be {least}")
    return value


def _share(params: Mapping[str, Scalar], key: str) -> float:
    value = optim.number(params, key, 1.0)
    if not 0.0 <= value <= 1.0:
        raise ConfigError(f"params.{key} is {value:g}, but must lie in [0, 1]")
    return value


def _count(params: Mapping[str, Scalar], key: str) -> int:
    value = optim.number(params, key, 0.0)
    if value < 0.0 or not value.is_integer():
        raise ConfigError(f"params.{key} is {value:g}, but must be a whole number, 0 or more")
    return int(value)


def _one_of(params: Mapping[str, Scalar], key: str, default: str) -> str:
    value = str(params.get(key, default))
    if value not in FISHERS:
        raise ConfigError(f"params.{key}: no '{value}'{nearest(value, FISHERS)}")
    return value

"""The hyper-parameters of local training, read from a phase and checked."""

from __future__ import annotations

from dataclasses import dataclass

from fedalt.alternation.phase import Phase
from fedalt.clients.kernels import optim
from fedalt.clients.kernels.base import Order
from fedalt.clients.kernels.methods.settings import KEYS as METHOD_KEYS
from fedalt.clients.kernels.methods.settings import MethodSettings
from fedalt.errors import ConfigError, nearest

KEYS = (
    *optim.KEYS,
    "clip_norm",
    "proximal_mu",
    "optimizer_state",
    "report_initial_loss",
    *METHOD_KEYS,
)
"""What a phase's ``params`` may hold for the gradient kernel."""


@dataclass(frozen=True)
class LocalSettings:
    """The hyper-parameters of one phase. ``clip_norm`` 0 does not clip.

    ``methods`` are those against forgetting in a stream of tasks, None where none is on.
    """

    optimizer: optim.Optimizer
    clip_norm: float
    proximal_mu: float
    persist: bool
    report_initial_loss: bool
    methods: MethodSettings | None

    @classmethod
    def read(cls, phase: Phase, order: Order) -> LocalSettings:
        """Read ``phase.params``; μ may also come from the strategy as ``proximal-mu``.

        Raises :class:`ConfigError` naming the phase and the key.
        """
        try:
            for key in phase.params:
                if key not in KEYS:
                    raise ConfigError(f"unknown params.{key}{nearest(key, KEYS)}")
            sent = optim.number(order.extras, "proximal-mu", 0.0)
            values = {
                "clip_norm": optim.number(phase.params, "clip_norm", 0.0),
                "proximal_mu": optim.number(phase.params, "proximal_mu", sent),
            }
            for key, value in values.items():
                if value < 0.0:
                    raise ConfigError(f"params.{key} is {value}, but must be at least 0")
            kept = phase.params.get("optimizer_state", "reset")
            if kept not in ("reset", "persist"):
                raise ConfigError(f"params.optimizer_state is {kept!r}, but knows reset, persist")
            return cls(
                optimizer=optim.Optimizer.read(phase.params),
                persist=kept == "persist",
                report_initial_loss=optim.flag(phase.params, "report_initial_loss"),
                methods=MethodSettings.read(phase, order.phase.view.stream is not None),
                **values,
            )
        except ConfigError as error:
            raise ConfigError(f"phase '{phase.name}': {error}") from error


def check_methods(settings: LocalSettings, where: str) -> None:
    """Raise :class:`ConfigError` for methods against forgetting in a private phase."""
    if settings.methods is not None:
        raise ConfigError(
            f"{where}: params ask for {', '.join(settings.methods.names)}, which read rows that "
            "no clip bounds; train without methods against forgetting, or without privacy"
        )

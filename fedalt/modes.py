"""How a cohort of clients is computed: the modes there are, and their names.

    sequential                one client after the other, in place: the reference
    channels_last             the same, with images' channels last in memory
    batched[:K]               K clients at once, as one program over stacked parameters
    compiled                  one client after the other, the step compiled
    compiled-channels_last    the same with channels last
    batched-compiled[:K]      K clients at once, the step compiled

All compute the same steps on the same batches; what is not ``sequential`` rounds differently.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedalt.errors import ConfigError, nearest

AUTO = "auto"
NAMES = (
    "sequential",
    "channels_last",
    "batched",
    "compiled",
    "compiled-channels_last",
    "batched-compiled",
)


@dataclass(frozen=True)
class Mode:
    """One of the modes. ``clients`` is how many a batch holds; 0 leaves it to the kernel."""

    batched: bool = False
    compiled: bool = False
    channels_last: bool = False
    clients: int = 0

    @classmethod
    def read(cls, text: str) -> Mode:
        """Read a name such as ``batched:32``.

        Raises :class:`ConfigError` with the nearest name.
        """
        name, colon, count = text.partition(":")
        if name not in NAMES:
            raise ConfigError(
                f"engine.mode: unknown mode '{name}'{nearest(name, (AUTO, *NAMES))}; known are "
                f"{', '.join((AUTO, *NAMES))}"
            )
        if colon and (not name.startswith("batched") or not count.isdigit() or int(count) < 1):
            raise ConfigError(
                f"engine.mode={text}: a number of clients, 1 or more, may follow batched and "
                "batched-compiled only"
            )
        words = name.split("-")
        return cls(
            batched="batched" in words,
            compiled="compiled" in words,
            channels_last="channels_last" in words,
            clients=int(count or 0),
        )

    def __str__(self) -> str:
        words = [w for w in ("batched", "compiled", "channels_last") if getattr(self, w)]
        count = f":{self.clients}" if self.clients else ""
        return ("-".join(words) or "sequential") + count


SEQUENTIAL = Mode()

"""Who else hears the event log: the progress bar and TensorBoard, each only if asked for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from fedalt.runs.events import Event, Sink
from fedalt.runs.folder import RunFolder


def sinks_of(config: Mapping[str, Any], folder: RunFolder) -> list[Sink]:
    """Return the sinks a configuration asks for."""
    sinks: list[Sink] = []
    if config["tensorboard"]:
        sinks.append(TensorBoardSink(folder))
    return sinks


class TensorBoardSink:
    """Writes every round's metrics as TensorBoard scalars."""

    def __init__(self, folder: RunFolder) -> None:
        # Imported here: it costs more than a second, and most runs do not ask for it.
        from torch.utils.tensorboard import SummaryWriter

        self._open = partial(SummaryWriter, str(folder.path / "tensorboard"))
        self._writer: Any = None

    def __call__(self, event: Event) -> None:
        """Write a round's metrics; rounds that a resumed run tells again replace the former."""
        if event["event"] == "begin":
            self._writer = self._open(purge_step=event["round"] + 1)
        elif self._writer is None:
            return
        elif event["event"] == "round":
            for name, value in event["metrics"].items():
                self._writer.add_scalar(name, value, event["round"])
        elif event["event"] == "committed":
            self._writer.flush()
        elif event["event"] == "end":
            self._writer.close()

"""The digits of ``fedavg_mnist`` among clients in public groups, which can take turns.

Noise that is correlated over rounds hides a client that takes part at most once in so many of
them (``mechanism: banded``); groups of clients that come in a fixed order see to that.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from fedalt.alternation.site import Site
from fedalt.errors import ConfigError
from fedalt.scenarios.fedavg_mnist.task import DigitsTask


class GroupedDigits(DigitsTask):
    """Digits whose i-th client has the attribute ``group`` = i mod ``groups``."""

    def __init__(
        self,
        groups: int = 1,
        data: str = "mnist",
        root: str | None = None,
        clients: int = 1000,
        partition: str = "iid",
        alpha: float = 0.3,
        shards: int = 2,
        model: str = "logistic",
        rows: int | None = None,
        download: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(data, root, clients, partition, alpha, shards, model, rows, download, seed)
        if not 1 <= groups <= len(self.parts):
            raise ConfigError(f"task.groups={groups}: must be 1 to {len(self.parts)}, the clients")
        self._groups = groups

    @cached_property
    def sites(self) -> Sequence[Site]:
        """One site a client, each with its group."""
        return [
            Site(i, f"client-{i}", len(part), {"group": str(i % self._groups)})
            for i, part in enumerate(self.parts)
        ]

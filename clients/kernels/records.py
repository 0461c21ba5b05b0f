"""What the steps of clients that train together measured, and who of them went wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from fedalt.clients.kernels.client import ADVICE, Client
from fedalt.errors import FedaltError


@dataclass
class Records:
    """Means over rows for K clients, and each one's first error.

    ``steps`` counts the steps a client has taken; a client with an error goes on training with
    the others, and its results are thrown away.
    """

    clients: Sequence[Client]
    steps: np.ndarray = field(init=False)
    errors: list[Exception | None] = field(init=False)
    _sums: dict[str, np.ndarray] = field(default_factory=dict)
    _rows: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.clients)
        self.steps = np.zeros(count, dtype=np.int64)
        self.errors = [None] * count
        self._rows = np.zeros(count)

    def add(self, names: Sequence[str], table: np.ndarray, counts: np.ndarray) -> None:
        """Take in a stage: what was measured (S, K, M), the loss first, and rows (S, K) behind it.

        Steps without rows did not happen.
        """
        taken = counts > 0
        # One look for the usual case: a sum is finite only if all of its terms are.
        if not np.isfinite(table.sum()):
            self._find_losses(table[..., 0], taken)
            table = np.where(taken[..., None], table, 0.0)
        totals = np.einsum("skm,sk->mk", table, counts, dtype=np.float64)
        for name, total in zip(names, totals, strict=True):
            self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._rows += counts.sum(0)
        self.steps += taken.sum(0)

    def add_private(
        self, names: Sequence[str], table: np.ndarray, counts: np.ndarray, steps: Sequence[int]
    ) -> None:
        """Take in a private stage: no row's loss is an error, and steps may be without rows."""
        fine = np.isfinite(table).all(-1)
        rows = np.where(fine, counts, 0)
        totals = np.einsum("skm,sk->mk", np.where(fine[..., None], table, 0.0), rows, dtype=float)
        for name, total in zip(names, totals, strict=True):
            self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._rows += rows.sum(0)
        self.steps += np.asarray(steps)

    def unmeasured(self) -> bool:
        """Say whether some client trained on no row at all."""
        return bool((self._rows == 0).any())

    def _find_losses(self, losses: np.ndarray, taken: np.ndarray) -> None:
        broken = taken & ~np.isfinite(losses)
        for place in np.flatnonzero(broken.any(0)):
            step = int(np.argmax(broken[:, place]))
            self._fail(
                int(place),
                f"step {self.steps[place] + taken[: step + 1, place].sum()}: "
                f"the loss is {float(losses[step, place])}",
            )

    def check(self, params: Sequence[torch.Tensor]) -> None:
        """Note each client of whose parameters (K, ...) one is no longer finite."""
        count = len(self.clients)
        if math.isfinite(sum(float(param[:count].sum()) for param in params)):
            return
        for place in range(count):
            if not all(param[place].isfinite().all() for param in params):
                self._fail(place, f"step {self.steps[place]}: a parameter is not finite")

    def means(self, place: int) -> dict[str, float]:
        """Return one client's metrics, means over the rows it trained on."""
        return {n: float(total[place] / self._rows[place]) for n, total in self._sums.items()}

    def _fail(self, place: int, what: str) -> None:
        if self.errors[place] is None:
            self.errors[place] = FedaltError(f"{self.clients[place].where}, {what}; {ADVICE}")

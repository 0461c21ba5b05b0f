"""A function of the model as a module of its own, whose arrays can be lent for a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch

from fedalt.clients.kernels.evaluate import Batch
from fedalt.clients.kernels.model import ReusedModel

T = TypeVar("T")


class Lent(torch.nn.Module, Generic[T]):
    """The model and a function of it and a batch; the model's arrays are named ``model.…``."""

    def __init__(self, model: ReusedModel, function: Callable[[torch.nn.Module, Batch], T]) -> None:
        super().__init__()
        self.model = model.module
        self._function, self._autocast = function, model.autocast

    def forward(self, batch: Batch) -> T:
        """Return the function of the model and a batch, rounded as the model's precision allows."""
        with self._autocast():
            return self._function(self.model, batch)

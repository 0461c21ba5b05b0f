"""The samples and the noise of clients that take private steps together.

Each client draws from its own generator, in the order in which it would alone (``dpsgd.py``):
all samples when the stage begins, then the noise of its steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fedalt.clients.kernels.dpsgd import Mechanism
from fedalt.clients.kernels.pooled import Layout, lay_out_samples, room_for


class StackedNoise:
    """What a private step of ``width`` clients reads beside their rows.

    ``layout`` holds the rows of all steps, ``steps`` how many each client takes. ``params`` are
    the stacked trained parameters, each (width, ...).
    """

    def __init__(
        self, mechanisms: Sequence[Mechanism], width: int, params: Sequence[torch.Tensor]
    ) -> None:
        self._mechanisms, self._width = mechanisms, width
        self._size = sum(param[0].numel() for param in params)
        exact = any(param.dtype == torch.float64 for param in params)
        self._kind = torch.float64 if exact else torch.float32
        self._device = params[0].device
        drawn = [mechanism.batches() for mechanism in mechanisms]
        largest = max(len(sample) for samples in drawn for sample in samples)
        expected = max(mechanism.sample.expected for mechanism in mechanisms)
        self.layout: Layout = lay_out_samples(drawn, width, room_for(largest, expected))
        self.steps = [mechanism.sample.steps for mechanism in mechanisms]
        public = np.ones((width, 2))
        for place, mechanism in enumerate(mechanisms):
            public[place] = mechanism.spec.clip, 1.0 / mechanism.sample.expected
        self._public = torch.from_numpy(public).to(self._device, self._kind)

    def zeros(self) -> tuple[torch.Tensor, ...]:
        """Return tensors such as :meth:`of_step` does, for an example; nothing is drawn."""
        noise = torch.zeros(self._width, self._size, dtype=self._kind, device=self._device)
        return noise, self._public, torch.ones(self._width, device=self._device)

    def of_step(self, number: int) -> tuple[torch.Tensor, ...]:
        """Draw a step's noise (width, D); with C and 1/(q·n), and who takes the step at all."""
        noise = torch.zeros(self._width, self._size, dtype=self._kind)
        active = torch.zeros(self._width)
        for place, mechanism in enumerate(self._mechanisms):
            if number < mechanism.sample.steps:
                noise[place] = mechanism.noise(self._size, self._kind)
                active[place] = 1.0
        return noise.to(self._device), self._public, active.to(self._device)

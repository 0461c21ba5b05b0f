"""Features on a scale that the first task sets: no later task is looked at for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fedalt.errors import ConfigError, nearest

SCALES = ("none", "standardise")


@dataclass(frozen=True)
class Scale:
    """(x − mean) / deviation, by feature: both (features,) float32."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Return rows (n, features) float32, scaled."""
        return (rows.float() - self.mean) / self.deviation


def read_scale(name: str, rows: torch.Tensor) -> Scale:
    """Return the scale of some rows (n, features): ``none`` or ``standardise``.

    A feature that is the same in all of them is centred and not stretched. Raises
    :class:`ConfigError` for another name.
    """
    if name not in SCALES:
        raise ConfigError(f"task.scale: unknown scale '{name}'{nearest(name, SCALES)}")
    features = rows.shape[1]
    if name == "none":
        return Scale(torch.zeros(features), torch.ones(features))
    exact = rows.double()
    deviation, mean = torch.std_mean(exact, dim=0, correction=0)
    # By its ends: of rounded means the deviation is not quite 0.
    same = exact.amin(0) == exact.amax(0)
    return Scale(mean.float(), deviation.masked_fill(same, 1.0).float())

"""Networks of blocks ``body`` and ``head`` for flat images in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import nn

from fedalt.alternation.block import Block
from fedalt.errors import ConfigError, nearest
from fedalt.scenarios.continual_power_law.settings import number
from fedalt.seeds import Seeds

MODELS = ("mlp", "cnn")
NORMS = ("none", "layer", "batch")
_CHANNELS = (16, 32)


@dataclass(frozen=True)
class Network:
    """Settings of a network.

    ``hidden`` are the widths of the dense layers; ``cnn`` puts two 5 × 5 convolutions of 16 and
    32 channels before them. ``norm`` stands between each of them and its ReLU, ``dropout`` after
    the ReLU of dense layers.
    """

    name: str = "mlp"
    hidden: tuple[int, ...] = (200, 200)
    norm: str = "none"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for key, value, known in (("model", self.name, MODELS), ("norm", self.norm, NORMS)):
            if value not in known:
                raise ConfigError(f"task.{key}: unknown {key} '{value}'{nearest(value, known)}")
        if not 0.0 <= number(self.dropout, "task.dropout") < 1.0:
            raise ConfigError(f"task.dropout is {self.dropout}, but must lie in [0, 1)")

    @property
    def blocks(self) -> list[Block]:
        """The last layer as a block, and all before it where there is any."""
        head = Block("head", ("head/*",))
        bare = self.name == "mlp" and not self.hidden
        return [head] if bare else [head, Block("body", ("body/*",))]

    def build(self, side: int, outputs: int) -> nn.Module:
        """Build the network: images (n, side²) to scores (n, outputs)."""
        if self.name == "mlp":
            return self.dense(side * side, outputs)
        layers, features = self._convolutions(side)
        return self._ended(layers, features, outputs)

    def dense(self, features: int, outputs: int) -> nn.Module:
        """Build the dense layers alone: rows (n, features) to scores (n, outputs)."""
        return self._ended([], features, outputs)

    def _ended(self, layers: list[nn.Module], features: int, outputs: int) -> nn.Module:
        for width in self.hidden:
            layers += [nn.Linear(features, width), *self._norm(width, nn.BatchNorm1d), nn.ReLU()]
            layers += [nn.Dropout(self.dropout)] if self.dropout else []
            features = width
        made = nn.Sequential()
        if layers:
            made.add_module("body", nn.Sequential(*layers))
        made.add_module("head", nn.Linear(features, outputs))
        return made

    def _convolutions(self, side: int) -> tuple[list[nn.Module], int]:
        layers: list[nn.Module] = [nn.Unflatten(1, (1, side, side))]
        for before, width in zip((1, *_CHANNELS), _CHANNELS, strict=False):
            layers.append(nn.Conv2d(before, width, 5, padding=2))
            layers += [*self._norm(width, nn.BatchNorm2d), nn.ReLU(), nn.MaxPool2d(2)]
        return [*layers, nn.Flatten()], _CHANNELS[-1] * (side // 4) ** 2

    def _norm(self, width: int, batch: Callable[[int], nn.Module]) -> list[nn.Module]:
        if self.norm == "none":
            return []
        # One group is layer normalisation, over channels and places where there are any.
        return [batch(width) if self.norm == "batch" else nn.GroupNorm(1, width)]


def initial(model: nn.Module, seeds: Seeds) -> dict[str, np.ndarray]:
    """Return He-initialised weights and zero biases; of norms what torch begins with."""
    rng = seeds.numpy()
    arrays = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            shape = tuple(module.weight.shape)
            drawn = np.sqrt(2.0 / np.prod(shape[1:])) * rng.standard_normal(shape)
            arrays[f"{name}.weight"] = drawn.astype(np.float32)
            arrays[f"{name}.bias"] = np.zeros(shape[0], np.float32)
    return arrays

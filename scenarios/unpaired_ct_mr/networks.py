"""Segmentation networks for images of several modalities: backbone, norm policy, head.

A network maps images (n, 1, *size) float32 and modalities (n,) int64 to logits (n, K, *size) of
background and organs. Its top-level modules are ``encoder``, ``decoder`` and ``head``, which are
its blocks beside ``norm``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from fedalt.errors import ConfigError, nearest
from fedalt.scenarios.unpaired_ct_mr import backbones
from fedalt.scenarios.unpaired_ct_mr.controller import CONVOLUTIONS, Controller
from fedalt.scenarios.unpaired_ct_mr.embeddings import BACKGROUND, Embeddings
from fedalt.scenarios.unpaired_ct_mr.norms import (
    NORMS,
    norm_of,
    replace_instance_norms,
)
from fedalt.seeds import Seeds

BACKBONES = tuple(backbones.DIVISORS)
HEADS = ("modality", "text", "plain")


@dataclass(frozen=True)
class NetworkSettings:
    """Settings of a network; the defaults are a small 2-D UNet.

    ``features`` are the UNet's channels (five levels, then o), ``feature_size`` is the Swin
    UNETR's. Heads: ``modality`` is the text-driven controller, ``text`` the same without the
    modality (each class's embeddings averaged over them, as many parameters), ``plain`` a 1×1
    convolution; ``hidden`` and ``width`` are the controller's (the paper's: 256 and 8).
    """

    backbone: str = "unet"
    dims: int = 2
    features: tuple[int, ...] = (8, 8, 16, 32, 64, 8)
    feature_size: int = 24
    norm: str = "group"
    head: str = "modality"
    hidden: int = 32
    width: int = 8
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for key, known in (("backbone", BACKBONES), ("norm", NORMS), ("head", HEADS)):
            value = getattr(self, key)
            if value not in known:
                hint = nearest(str(value), known)
                raise ConfigError(f"task.network.{key}: unknown {key} {value!r}{hint}")
        if self.dims not in (2, 3):
            raise ConfigError(
                f"task.network.dims is {self.dims!r}, but an image has 2 or 3 dimensions"
            )
        object.__setattr__(self, "features", _wholes(self.features, "task.network.features"))
        if len(self.features) != 6:
            raise ConfigError(
                f"task.network.features has {len(self.features)} numbers, expected 6: five levels' "
                "and o's"
            )
        for key in ("feature_size", "hidden", "width"):
            _wholes((getattr(self, key),), f"task.network.{key}")
        if self.feature_size % 12:
            raise ConfigError(
                f"task.network.feature_size is {self.feature_size}, but must be a multiple of 12"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"task.network.dropout is {self.dropout}, but must lie in [0, 1)")

    def check_size(self, size: Sequence[int]) -> None:
        """Raise :class:`ConfigError` unless the network can read images of that size."""
        shape = " × ".join(map(str, size))
        if len(size) != self.dims:
            raise ConfigError(f"images of {shape} voxels do not fit task.network.dims={self.dims}")
        divisor = backbones.DIVISORS[self.backbone]
        if any(side % divisor for side in size):
            fitting = " × ".join(str(-(-side // divisor) * divisor) for side in size)
            raise ConfigError(
                f"images of {shape} voxels do not fit: every side must be a multiple of {divisor} "
                f"for backbone '{self.backbone}'; take {fitting}"
            )
        if self.norm != "group" and all(side == divisor for side in size):
            raise ConfigError(
                f"images of {shape} voxels leave one at the bottleneck, which {self.norm} "
                "normalisation cannot scale; take larger images or task.network.norm=group"
            )


class PlainHead(nn.Module):
    """A 1×1 convolution of o: the same for all modalities."""

    def __init__(self, out: int, classes: int, dims: int) -> None:
        super().__init__()
        self.classes = CONVOLUTIONS[dims](out, classes, 1)

    def forward(
        self, bottleneck: torch.Tensor, out: torch.Tensor, modality: torch.Tensor
    ) -> torch.Tensor:
        """Return logits (n, K, *size)."""
        logits: torch.Tensor = self.classes(out)
        return logits


class Segmenter(nn.Module):
    """Encoder, decoder and head."""

    def __init__(self, settings: NetworkSettings, body: backbones.Backbone, head: nn.Module):
        super().__init__()
        self.settings = settings
        self.encoder, self.decoder, self.head = body.encoder, body.decoder, head

    def forward(self, image: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
        """Return logits (n, K, *size) of images (n, 1, *size) and modalities (n,).

        Raises :class:`ConfigError` for a size that the backbone cannot halve often enough.
        """
        self.settings.check_size(image.shape[2:])
        features = self.encoder(image)
        logits: torch.Tensor = self.head(features[-1], self.decoder(features), modality)
        return logits


def segmenter(
    settings: NetworkSettings,
    organs: Sequence[str],
    modalities: Sequence[str],
    embeddings: Embeddings | None = None,
) -> Segmenter:
    """Build a network for K = 1 + len(organs) classes.

    ``embeddings`` may be left out for the plain head. Raises :class:`ConfigError` where they are
    of other classes or modalities.
    """
    if settings.backbone == "unet":
        body = backbones.unet(settings.dims, settings.features, settings.dropout)
    else:
        body = backbones.swin(settings.dims, settings.feature_size, settings.dropout)
    build = norm_of(settings.norm, settings.dims)
    replace_instance_norms(body.encoder, build)
    replace_instance_norms(body.decoder, build)
    if settings.head == "plain":
        head: nn.Module = PlainHead(body.out, 1 + len(organs), settings.dims)
    else:
        values = _values(settings, organs, modalities, embeddings)
        sizes: Any = (settings.dims, settings.hidden, settings.width)
        head = Controller(body.bottleneck, body.out, values, *sizes)
    return Segmenter(settings, body, head)


def initial(model: nn.Module, seeds: Seeds) -> dict[str, np.ndarray]:
    """Return first arrays as torch draws them, but from ``seeds``: U(±1/√fan-in) for weights.

    Norms, tables of positions and running statistics stay as the model has them, if they do not
    depend on chance; tables are drawn from N(0, 0.02²), cut at two standard deviations.
    """
    rng = seeds.numpy()
    arrays = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
            bound = 1.0 / np.sqrt(module.weight[0].numel())
            for key in ("weight", "bias"):
                array = f"{name}.{key}"
                if array in arrays:
                    drawn = rng.uniform(-bound, bound, arrays[array].shape)
                    arrays[array] = drawn.astype(np.float32)
    for name in arrays:
        if name.endswith("relative_position_bias_table"):
            drawn = np.clip(rng.standard_normal(arrays[name].shape), -2.0, 2.0)
            arrays[name] = (0.02 * drawn).astype(np.float32)
    return arrays


def _values(
    settings: NetworkSettings,
    organs: Sequence[str],
    modalities: Sequence[str],
    embeddings: Embeddings | None,
) -> torch.Tensor:
    """Return the head's embeddings (M, K, d), in the order asked."""
    if embeddings is None:
        raise ConfigError(
            f"task.network.head '{settings.head}' needs embeddings; set task.embeddings"
        )
    chosen = embeddings.select(tuple(modalities), (BACKGROUND, *organs))
    values = torch.from_numpy(chosen.values.copy())
    if settings.head == "text":
        values = values.mean(0, keepdim=True).expand_as(values).contiguous()
    return values


def _wholes(values: Any, where: str) -> tuple[int, ...]:
    """Return whole numbers from 1 on."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ConfigError(f"{where} is {values!r}, expected a list of whole numbers")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"{where}: {value!r} is no whole number from 1 on")
    return tuple(values)

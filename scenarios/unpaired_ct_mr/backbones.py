"""Backbones of monai, parted into an encoder and a decoder that can travel on their own.

An encoder makes features of an image (n, 1, *size), finest first; the last are the bottleneck's
g. A decoder makes features o (n, channels, *size) of them. The layers are those of monai's
``BasicUNet`` (Falk et al. 2019, Nature Methods 16) and ``SwinUNETR`` (Hatamizadeh et al. 2022,
arXiv:2201.01266), called in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from fedalt.errors import ConfigError

Features = Sequence[torch.Tensor]

DIVISORS: Mapping[str, int] = {"unet": 16, "swin": 32}
"""What every side of an image must be a multiple of: how much the bottleneck is smaller."""


class Backbone(NamedTuple):
    """An encoder and its decoder, with the channels of g and of o."""

    encoder: nn.Module
    decoder: nn.Module
    bottleneck: int
    out: int


class UNetEncoder(nn.Module):
    """Five levels of two convolutions each, halved in between."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        for name in ("conv_0", "down_1", "down_2", "down_3", "down_4"):
            self.add_module(name, net.get_submodule(name))

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return the five levels' features."""
        features: list[torch.Tensor] = []
        for level in self.children():
            image = level(image)
            features.append(image)
        return features


class UNetDecoder(nn.Module):
    """Four times: doubled, beside the encoder's features of that size, two convolutions."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        for name in ("upcat_4", "upcat_3", "upcat_2", "upcat_1"):
            level = net.get_submodule(name)
            # Sides are multiples of 16, so that padding would copy everything for nothing.
            level.is_pad = False  # type: ignore[assignment]
            self.add_module(name, level)

    def forward(self, features: Features) -> torch.Tensor:
        """Return o."""
        return _upwards(self, features)


class SwinEncoder(nn.Module):
    """A Swin transformer, and residual convolutions on the image and on its features."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.transformer = net.get_submodule("swinViT")
        for name in ("encoder1", "encoder2", "encoder3", "encoder4", "encoder10"):
            self.add_module(name, net.get_submodule(name))

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return the features of six sizes, from the image's to the bottleneck's."""
        states = self.transformer(image)
        _, *convolutions, last = self.children()
        inputs = (image, *states[:3])
        found = [layer(x) for layer, x in zip(convolutions, inputs, strict=True)]
        return [*found, states[3], last(states[4])]


class SwinDecoder(nn.Module):
    """Five times: doubled, beside the encoder's features of that size, a residual block."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        for name in ("decoder5", "decoder4", "decoder3", "decoder2", "decoder1"):
            self.add_module(name, net.get_submodule(name))

    def forward(self, features: Features) -> torch.Tensor:
        """Return o."""
        return _upwards(self, features)


def _upwards(levels: nn.Module, features: Features) -> torch.Tensor:
    *skips, found = features
    for level, skip in zip(levels.children(), reversed(skips), strict=True):
        found = level(found, skip)
    return found


def unet(dims: int, features: Sequence[int], dropout: float) -> Backbone:
    """Build the UNet with instance normalisation; ``features`` are five levels' and o's."""
    nets = _monai_nets()
    # In place, an activation would overwrite what tracing and batching over models still need.
    act = ("leakyrelu", {"negative_slope": 0.1, "inplace": False})
    norm = ("instance", {"affine": True})
    net = nets.BasicUNet(dims, 1, 1, tuple(features), act=act, norm=norm, dropout=dropout)
    return Backbone(UNetEncoder(net), UNetDecoder(net), features[4], features[5])


def swin(dims: int, feature_size: int, dropout: float) -> Backbone:
    """Build the Swin UNETR with instance normalisation in its convolutional blocks."""
    nets = _monai_nets()
    net = nets.SwinUNETR(
        1,
        1,
        feature_size=feature_size,
        norm_name=("instance", {"affine": True}),
        drop_rate=dropout,
        spatial_dims=dims,
    )
    for module in net.modules():
        # Follows from the window alone: nothing to send or to average.
        if "relative_position_index" in module._buffers:
            index = module._buffers["relative_position_index"]
            module.register_buffer("relative_position_index", index, persistent=False)
    return Backbone(SwinEncoder(net), SwinDecoder(net), 16 * feature_size, feature_size)


def _monai_nets() -> Any:
    try:
        from monai.networks import nets
    except ImportError as error:
        raise ConfigError(
            "task.network.backbone: the backbones are monai's, which is not installed; "
            "pip install 'fedalt[medical]'"
        ) from error
    return nets

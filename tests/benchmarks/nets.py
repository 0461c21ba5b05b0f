"""The works' models in torch, and their losses; for every engine that trains torch modules."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional
from work import Arrays, Work


def network(name: str) -> nn.Module:
    """Build a work's model, ready for the weights of :meth:`Work.initial`."""
    if name == "unet":
        return UNet()
    if name.startswith("logistic"):
        layers: list[tuple[str, nn.Module]] = [("flat", nn.Flatten()), ("fc", nn.Linear(784, 10))]
    elif name == "mlp":
        layers = [
            ("flat", nn.Flatten()),
            ("fc1", nn.Linear(784, 200)),
            ("relu", nn.ReLU()),
            ("fc2", nn.Linear(200, 10)),
        ]
    else:
        layers = [
            ("conv1", nn.Conv2d(1, 16, 3, padding=1)),
            ("relu1", nn.ReLU()),
            ("pool1", nn.MaxPool2d(2)),
            ("conv2", nn.Conv2d(16, 32, 3, padding=1)),
            ("relu2", nn.ReLU()),
            ("pool2", nn.MaxPool2d(2)),
            ("flat", nn.Flatten()),
            ("fc1", nn.Linear(1568, 128)),
            ("relu3", nn.ReLU()),
            ("fc2", nn.Linear(128, 10)),
        ]
    return nn.Sequential(OrderedDict(layers))


def perceptron(arrays: Arrays) -> nn.Module:
    """Build dense layers with ReLU between them from weights ``body.0.weight`` … ``head.bias``."""
    inner = sorted({int(name.split(".")[1]) for name in arrays if name.startswith("body.")})
    layers: list[nn.Module] = []
    for place in inner:
        out, into = arrays[f"body.{place}.weight"].shape
        layers += [nn.Linear(into, out), nn.ReLU()]
    out, into = arrays["head.weight"].shape
    parts = OrderedDict(body=nn.Sequential(*layers), head=nn.Linear(into, out))
    model = nn.Sequential(parts)
    model.load_state_dict({name: torch.tensor(values) for name, values in arrays.items()})
    return model


class UNet(nn.Module):
    """Two levels down and up again on 64 × 64 images; no norm, so clients share all arrays."""

    def __init__(self) -> None:
        super().__init__()
        for layer, into, out in (
            ("down1a", 1, 8), ("down1b", 8, 8), ("down2a", 8, 16), ("down2b", 16, 16),
            ("deep1", 16, 32), ("deep2", 32, 32), ("up2a", 48, 16), ("up2b", 16, 16),
            ("up1a", 24, 8), ("up1b", 8, 8),
        ):  # fmt: skip
            self.add_module(layer, nn.Conv2d(into, out, 3, padding=1))
        self.out = nn.Conv2d(8, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits (n, 1, 64, 64) of images (n, 1, 64, 64)."""
        first = self._twice(x, "down1")
        second = self._twice(functional.max_pool2d(first, 2), "down2")
        deep = functional.max_pool2d(second, 2)
        deep = functional.relu(self.deep2(functional.relu(self.deep1(deep))))
        up = torch.cat([functional.interpolate(deep, scale_factor=2.0), second], 1)
        up = functional.interpolate(self._twice(up, "up2"), scale_factor=2.0)
        logits: torch.Tensor = self.out(self._twice(torch.cat([up, first], 1), "up1"))
        return logits

    def _twice(self, x: torch.Tensor, level: str) -> torch.Tensor:
        for half in "ab":
            x = functional.relu(getattr(self, level + half)(x))
        return x


def loss_of(name: str, scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the batch's mean loss: cross-entropy, of each pixel for the UNet."""
    if name == "unet":
        return functional.binary_cross_entropy_with_logits(scores, target)
    return functional.cross_entropy(scores, target)


def with_weights(work: Work, arrays: Arrays) -> nn.Module:
    """Build a work's model with weights."""
    model = network(work.name)
    model.load_state_dict({name: torch.tensor(values) for name, values in arrays.items()})
    return model


def arrays_of(model: nn.Module) -> Arrays:
    """Return a model's weights as arrays."""
    return {name: value.numpy() for name, value in model.state_dict().items()}


@torch.no_grad()
def pixel_accuracy(work: Work, arrays: Arrays) -> float:
    """Return the share of the UNet's test pixels told right."""
    scores = with_weights(work, arrays)(torch.from_numpy(work.test_x))
    return float(((scores > 0) == (torch.from_numpy(work.test_y) > 0.5)).float().mean())

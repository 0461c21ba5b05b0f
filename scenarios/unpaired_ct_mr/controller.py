"""The text-driven controller: a head whose weights are made for each image, modality and class.

MulModSeg's (Li et al. 2024, arXiv:2411.15576), after the CLIP-driven universal model (Liu et al.
2023, arXiv:2301.00785). From the backbone's bottleneck g and decoder features o, and the text
embedding e[m, c] of modality m and class c, which is frozen:

    v   = Conv1(AvgPool(ReLU(GN(g))))           what the image is like
    t_c = ReLU(W e[m, c] + b)                   what to look for
    θ_c = Linear([v; t_c])                      three 1×1 convolutions: w→w, w→w, w→1
    p   = Conv1(ReLU(GN(o)))                    w channels at every place
    logit_c = conv(p; θ_c), ReLU between

Each row is conditioned on its own modality. Only tensor operations that no value steers, so that
rows and models can be batched and the whole be traced.
"""

from __future__ import annotations

import torch
from torch import nn

from fedalt.scenarios.unpaired_ct_mr.norms import group_norm

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)


def parameters_of(width: int) -> int:
    """Return the length of θ_c: 153 for the paper's width of 8."""
    return 2 * (width * width + width) + width + 1


class Controller(nn.Module):
    """The head above; ``embeddings`` (M, K, d) float32, K classes with the background."""

    embeddings: torch.Tensor

    def __init__(
        self,
        bottleneck: int,
        out: int,
        embeddings: torch.Tensor,
        dims: int,
        hidden: int,
        width: int,
    ) -> None:
        super().__init__()
        convolution = _CONVOLUTIONS[dims - 2]
        self.width = width
        # Equal at all sites for good: neither sent nor averaged.
        self.register_buffer("embeddings", embeddings, persistent=False)
        self.image_norm = group_norm(bottleneck)
        # On one pooled value a channel, a 1×1 convolution is a linear layer.
        self.image = nn.Linear(bottleneck, hidden)
        self.text = nn.Linear(embeddings.shape[2], hidden)
        self.weights = nn.Linear(2 * hidden, parameters_of(width))
        self.pixel_norm = group_norm(out)
        self.pixels = convolution(out, width, 1)

    def forward(
        self, bottleneck: torch.Tensor, out: torch.Tensor, modality: torch.Tensor
    ) -> torch.Tensor:
        """Return logits (n, K, *size) of g (n, channels, *small), o and modalities (n,)."""
        theta = self.kernels(bottleneck, modality)
        places = self.pixels(torch.relu(self.pixel_norm(out)))
        return convolve(places.flatten(2), theta).unflatten(2, out.shape[2:])

    def kernels(self, bottleneck: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
        """Return θ (n, K, parameters)."""
        pooled = torch.relu(self.image_norm(bottleneck)).flatten(2).mean(2)
        text = torch.relu(self.text(self.embeddings[modality]))
        image = self.image(pooled).unsqueeze(1).expand(-1, text.shape[1], -1)
        theta: torch.Tensor = self.weights(torch.cat((image, text), 2))
        return theta


def convolve(places: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """Return logits (n, K, s) of places (n, w, s) by each row's and class's own weights."""
    width, classes = places.shape[1], theta.shape[1]
    square = width * width
    first, first_bias, second, second_bias, third, third_bias = theta.split(
        (square, width, square, width, width, 1), dim=2
    )
    # The first convolutions of all classes read the same places: one product does for them all.
    joined = first.reshape(-1, classes * width, width) @ places
    hidden = joined.unflatten(1, (classes, width)) + first_bias.unsqueeze(3)
    hidden = second.unflatten(2, (width, width)) @ torch.relu(hidden) + second_bias.unsqueeze(3)
    return (third.unsqueeze(2) @ torch.relu(hidden)).squeeze(2) + third_bias

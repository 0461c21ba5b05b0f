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
from torch.nn.functional import linear

from fedalt.scenarios.unpaired_ct_mr.norms import group_norm

CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}
"""A convolution by the dimensions of its images."""


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
        convolution = CONVOLUTIONS[dims]
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
        logits = convolve(places.flatten(2), theta)
        return logits.reshape(*logits.shape[:2], *out.shape[2:])

    def kernels(self, bottleneck: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
        """Return θ (n, K, parameters).

        Linear([v; t_c]) is taken as A v + (B t_c + bias): all of the text is the same for all rows,
        and there are few modalities.
        """
        pooled = torch.relu(self.image_norm(bottleneck)).flatten(2).mean(2)
        by_image, by_text = self.weights.weight.chunk(2, 1)
        modalities, classes = self.embeddings.shape[:2]
        text = torch.relu(self.text(self.embeddings.flatten(0, 1)))
        theta = linear(text, by_text, self.weights.bias).reshape(modalities, classes, -1)
        return linear(self.image(pooled), by_image).unsqueeze(1) + theta.index_select(0, modality)


def convolve(places: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """Return logits (n, K, s) of places (n, w, s) by each row's and class's own weights (n, K, ·).

    A 1×1 convolution is a product of matrices, and a batch of products takes a third of the time
    of a convolution with as many groups.
    """
    rows, width = places.shape[:2]
    classes = theta.shape[1]
    square, each = width * width, rows * classes
    sizes = [square, width, square, width, width, 1]
    first, bias1, second, bias2, third, bias3 = torch.split(theta, sizes, 2)
    # The first convolutions of all classes read the same places: one product does for them all.
    joined = first.reshape(rows, classes * width, width)
    hidden = torch.relu(joined @ places + bias1.reshape(rows, classes * width, 1))
    hidden = second.reshape(each, width, width) @ hidden.reshape(each, width, -1)
    hidden = torch.relu(hidden + bias2.reshape(each, width, 1))
    logits = third.reshape(each, 1, width) @ hidden + bias3.reshape(each, 1, 1)
    return logits.reshape(rows, classes, -1)

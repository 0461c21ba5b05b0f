"""Promise: each row's head is made for its own modality, as the paper's equations say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.func import functional_call, vmap

from fedalt.scenarios.unpaired_ct_mr.controller import Controller, convolve, parameters_of

ROWS, CLASSES, MODALITIES = 3, 4, 2


def controller(dims: int = 2) -> Controller:
    torch.manual_seed(1)
    embeddings = torch.randn(MODALITIES, CLASSES, 20)
    return Controller(12, 6, embeddings, dims, hidden=5, width=8)


def inputs(dims: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    g = torch.randn(ROWS, 12, *[2] * dims, generator=generator)
    return g, torch.randn(ROWS, 6, *[4] * dims, generator=generator), torch.tensor([1, 0, 1])


def by_hand(places: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Three 1 × 1 convolutions in loops: places (n, 8, s), theta (n, K, 153)."""
    logits = np.zeros((len(theta), theta.shape[1], places.shape[2]))
    for row in range(len(theta)):
        for c in range(theta.shape[1]):
            parts = np.split(theta[row, c], np.cumsum([64, 8, 64, 8, 8]))
            w1, b1, w2, b2, w3, b3 = parts
            for place in range(places.shape[2]):
                hidden = np.maximum(w1.reshape(8, 8) @ places[row, :, place] + b1, 0.0)
                hidden = np.maximum(w2.reshape(8, 8) @ hidden + b2, 0.0)
                logits[row, c, place] = w3 @ hidden + b3[0]
    return logits


def test_a_class_has_the_papers_153_parameters() -> None:
    assert parameters_of(8) == 153
    head = Controller(512, 64, torch.zeros(2, 14, 512), 3, hidden=256, width=8)
    assert head.weights.weight.shape == (153, 512)
    assert (head.image_norm.num_groups, head.pixel_norm.num_groups) == (16, 16)


def test_convolutions_match_a_loop() -> None:
    rng = np.random.default_rng(3)
    places, theta = rng.normal(size=(2, 8, 5)), rng.normal(size=(2, 3, 153))
    found = convolve(torch.from_numpy(places), torch.from_numpy(theta)).numpy()
    np.testing.assert_allclose(found, by_hand(places, theta), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_head_follows_the_equations(dims: int) -> None:
    head = controller(dims).double()
    g, o, modality = inputs(dims)
    g, o = g.double(), o.double()
    pooled = torch.relu(head.image_norm(g)).flatten(2).mean(2)
    rows = []
    for row in range(ROWS):
        v = head.image(pooled[row])
        t = [torch.relu(head.text(e)) for e in head.embeddings[modality[row]]]
        rows.append(torch.stack([head.weights(torch.cat([v, t_c])) for t_c in t]))
    theta = torch.stack(rows)
    torch.testing.assert_close(head.kernels(g, modality), theta)
    places = head.pixels(torch.relu(head.pixel_norm(o))).flatten(2)
    wanted = by_hand(places.detach().numpy(), theta.detach().numpy())
    found = head(g, o, modality).detach()
    assert found.shape == (ROWS, CLASSES, *[4] * dims)
    np.testing.assert_allclose(found.flatten(2).numpy(), wanted, rtol=1e-8, atol=1e-9)


def test_mixed_rows_are_as_they_are_alone() -> None:
    head, (g, o, modality) = controller(), inputs()
    together = head(g, o, modality)
    for row in range(ROWS):
        part = slice(row, row + 1)
        torch.testing.assert_close(together[part], head(g[part], o[part], modality[part]))
    assert not torch.allclose(together, head(g, o, 1 - modality))


def test_models_and_rows_can_be_batched() -> None:
    heads = [controller(), controller()]
    with torch.no_grad():
        for parameter in heads[1].parameters():
            parameter.add_(0.1)
    stacked = {
        name: torch.stack([dict(head.named_parameters())[name] for head in heads])
        for name, _ in heads[0].named_parameters()
    }
    rows = inputs()

    def one(parameters: dict[str, torch.Tensor], *row: torch.Tensor) -> torch.Tensor:
        return functional_call(heads[0], parameters, tuple(part.unsqueeze(0) for part in row))[0]

    found = vmap(vmap(one, in_dims=(None, 0, 0, 0)), in_dims=(0, None, None, None))(stacked, *rows)
    for head, logits in zip(heads, found, strict=True):
        torch.testing.assert_close(logits, head(*rows))


def test_embeddings_do_not_travel_and_do_not_learn() -> None:
    head = controller()
    assert "embeddings" not in head.state_dict()
    head(*inputs()).square().sum().backward()
    assert head.embeddings.grad is None and not head.embeddings.requires_grad
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name

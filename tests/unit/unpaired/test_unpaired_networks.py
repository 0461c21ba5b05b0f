"""Promise: any backbone, norm and head makes a network of parts, conditioned row by row."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from fedalt.alternation.block import Block, BlockMap
from fedalt.alternation.phase import Phase
from fedalt.alternation.site import Site
from fedalt.clients.kernels.base import Order, SiteContext, Work
from fedalt.clients.kernels.gradient import GradientKernel
from fedalt.errors import ConfigError
from fedalt.scenarios.unpaired_ct_mr.blocks import blocks_of
from fedalt.scenarios.unpaired_ct_mr.embeddings import load_embeddings
from fedalt.scenarios.unpaired_ct_mr.loss import dice_ce
from fedalt.scenarios.unpaired_ct_mr.networks import (
    HEADS,
    NetworkSettings,
    Segmenter,
    initial,
    segmenter,
)
from fedalt.scenarios.unpaired_ct_mr.norms import NORMS
from fedalt.seeds import Seeds

pytest.importorskip("monai")

ORGANS, MODALITIES = ("liver", "spleen"), ("ct", "mr")
TINY = NetworkSettings(features=(3, 4, 6, 6, 8, 4), hidden=6)


def network(settings: NetworkSettings = TINY, **changes: Any) -> Segmenter:
    torch.manual_seed(7)
    embeddings = load_embeddings("ngrams", MODALITIES, ORGANS)
    return segmenter(replace(settings, **changes), ORGANS, MODALITIES, embeddings)


def images(*size: int, rows: int = 2) -> torch.Tensor:
    return torch.randn(rows, 1, *size, generator=torch.Generator().manual_seed(8))


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({}, (32, 16)),
        ({"dims": 3}, (32, 16, 16)),
        ({"backbone": "swin", "feature_size": 12}, (32, 64)),
        ({"backbone": "swin", "feature_size": 12, "dims": 3}, (32, 32, 32)),
    ],
)
def test_logits_have_the_images_size(changes: dict[str, Any], size: tuple[int, ...]) -> None:
    model = network(**changes)
    logits = model(images(*size), torch.tensor([0, 1]))
    assert logits.shape == (2, 3, *size)
    logits.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        if name.startswith("head"):
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("backbone", ["unet", "swin"])
def test_parts_compute_what_monais_network_does(backbone: str) -> None:
    from monai.networks import nets

    model = network(backbone=backbone, feature_size=12, norm="instance", head="plain").eval()
    if backbone == "unet":
        act = ("leakyrelu", {"negative_slope": 0.1})
        whole: Any = nets.BasicUNet(2, 1, 3, TINY.features, act=act)
        last = "final_conv"
    else:
        whole = nets.SwinUNETR(1, 3, feature_size=12, spatial_dims=2)
        last = "out.conv.conv"
    names = {"encoder.transformer.": "swinViT.", "head.classes.": f"{last}."}
    arrays = {}
    for name, value in model.state_dict().items():
        for ours, theirs in {**names, "encoder.": "", "decoder.": ""}.items():
            if name.startswith(ours):
                arrays[theirs + name.removeprefix(ours)] = value
                break
    # monai's Swin UNETR has instance normalisation without scale and shift: ours begin as 1 and 0.
    missing, unexpected = whole.load_state_dict(arrays, strict=False)
    assert all("relative_position_index" in name for name in missing)
    assert all("norm" in name and backbone == "swin" for name in unexpected)
    image = images(64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(image, torch.tensor([0, 1])), whole.eval()(image))


@pytest.mark.parametrize("head", HEADS)
def test_only_the_modality_head_hears_the_modality(head: str) -> None:
    model = network(head=head)
    image, modality = images(32, 32, rows=3), torch.tensor([0, 1, 1])
    found = model(image, modality)
    assert torch.allclose(found, model(image, 1 - modality)) == (head != "modality")
    for row in range(3):
        part = slice(row, row + 1)
        torch.testing.assert_close(found[part], model(image[part], modality[part]))


def test_heads_with_text_have_as_many_parameters_with_and_without_modality() -> None:
    sizes = [
        [(name, value.shape) for name, value in network(head=head).state_dict().items()]
        for head in ("modality", "text")
    ]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("backbone", ["unet", "swin"])
def test_blocks_part_the_model_and_norm_is_every_norm(backbone: str, norm: str) -> None:
    model = network(backbone=backbone, feature_size=12, norm=norm)
    names = tuple(model.state_dict())
    members = BlockMap.of(names, blocks_of(model)).members
    parts = [members[name] for name in ("encoder", "decoder", "head", "norm")]
    assert sorted(name for part in parts for name in part) == sorted(names)
    rest = [*members["encoder"], *members["decoder"]]
    # All that convolutions, linear layers and tables of positions have; norms have one dimension.
    for name in rest:
        module = model.get_submodule(name.rpartition(".")[0])
        assert hasattr(module, "kernel_size") or hasattr(module, "in_features") or "table" in name
    for name in members["norm"]:
        assert model.state_dict()[name].ndim <= 1, name
    running = [name for name in members["norm"] if "running" in name]
    assert bool(running) == (norm == "batch")
    assert not any("relative_position_index" in name for name in names)


def test_first_arrays_follow_the_seeds_and_torchs_bounds() -> None:
    model = network(norm="batch")
    arrays = initial(model, Seeds(1))
    again = initial(network(norm="batch"), Seeds(1))
    other = initial(model, Seeds(2))
    for name, value in model.state_dict().items():
        assert arrays[name].shape == tuple(value.shape) and np.array_equal(
            arrays[name], again[name]
        )
    weight = "encoder.conv_0.conv_1.conv.weight"
    assert not np.array_equal(arrays[weight], other[weight])
    bound = (3 * 9) ** -0.5
    assert 0.8 * bound < np.abs(arrays[weight]).max() <= bound
    assert np.all(arrays["encoder.conv_0.conv_1.adn.N.weight"] == 1.0)
    table = "encoder.transformer.layers1.0.blocks.0.attn.relative_position_bias_table"
    swin = network(backbone="swin", feature_size=12)
    drawn = initial(swin, Seeds(1))[table]
    assert 0.01 < drawn.std() < 0.02 and np.array_equal(drawn, initial(swin, Seeds(1))[table])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backbone": "unett"}, r"task\.network\.backbone.*'unett'.*'unet'"),
        ({"norm": "grup"}, r"task\.network\.norm.*'group'"),
        ({"head": "modalty"}, r"task\.network\.head.*'modality'"),
        ({"dims": 4}, r"task\.network\.dims is 4"),
        ({"features": (8, 8)}, r"task\.network\.features has 2 numbers"),
        ({"features": (8, 8, 8, 8, 0, 8)}, r"task\.network\.features: 0"),
        ({"feature_size": 20}, r"task\.network\.feature_size is 20.*12"),
        ({"dropout": 1.0}, r"task\.network\.dropout"),
        ({"hidden": 0}, r"task\.network\.hidden"),
    ],
)
def test_settings_that_do_not_fit_are_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        NetworkSettings(**changes)


@pytest.mark.parametrize(
    ("size", "changes", "words"),
    [
        ((32, 40), {}, r"32 × 40.*multiple of 16.*take 32 × 48"),
        ((32, 48), {"backbone": "swin"}, r"multiple of 32"),
        ((32, 32, 32), {}, r"task\.network\.dims=2"),
        ((16, 16), {"norm": "instance"}, r"instance normalisation cannot"),
    ],
)
def test_images_that_do_not_fit_are_refused(
    size: tuple[int, ...], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        NetworkSettings(**changes).check_size(size)


def test_what_a_network_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="multiple of 16"):
        network()(images(20, 32), torch.tensor([0, 1]))
    with pytest.raises(ConfigError, match="needs embeddings"):
        segmenter(TINY, ORGANS, MODALITIES)
    with pytest.raises(ConfigError, match="no class 'aorta'"):
        segmenter(TINY, ("aorta",), MODALITIES, load_embeddings("ngrams", MODALITIES, ORGANS))
    monkeypatch.setitem(sys.modules, "monai.networks", None)
    with pytest.raises(ConfigError, match=r"pip install 'fedalt\[medical\]'"):
        network()


@dataclass(frozen=True, eq=False)
class Segmenting:
    """Three sites of a modality each, of different sizes, the last with a partial label."""

    norm: str = "group"
    rows: tuple[int, ...] = (6, 5, 3)

    @property
    def sites(self) -> Sequence[Site]:
        return [Site(i, f"s{i}", n) for i, n in enumerate(self.rows)]

    @property
    def blocks(self) -> Sequence[Block]:
        return blocks_of(self.model())

    def model(self) -> Segmenter:
        return network(norm=self.norm)

    def initial_arrays(self, seeds: Seeds) -> dict[str, np.ndarray]:
        return initial(self.model(), seeds)

    def site_data(self, site: int) -> tuple[torch.Tensor, ...]:
        n, generator = self.rows[site], torch.Generator().manual_seed(site)
        known = torch.ones(n, 3, dtype=torch.bool)
        known[:, 2] = site < 2
        label = torch.randint(0, 3, (n, 32, 32), generator=generator)
        return images(32, 32, rows=n), label, torch.full((n,), site % 2), known

    def loss(self, model: torch.nn.Module, batch: tuple[torch.Tensor, ...]) -> Any:
        image, label, modality, known = batch
        return dice_ce(model(image, modality), label, known)

    def evaluate(self, arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
        return {}


def trained(task: Segmenting, mode: str) -> list[Work]:
    arrays = task.initial_arrays(Seeds(3))
    phase = Phase("fit", epochs=1, batch_size=4, params={"lr": 0.05})
    order = Order("run", 1, phase, arrays, tuple(arrays), mode=mode)
    sites = [SiteContext(task, i, {}, Seeds(1).at(i)) for i in range(len(task.rows))]
    works = list(GradientKernel().cohort(order, sites))
    for work in works:
        if isinstance(work, Exception):
            raise work
    return works  # type: ignore[return-value]


@pytest.mark.parametrize(
    "mode", ["batched:2", *(pytest.param(m, marks=pytest.mark.slow) for m in ("compiled",))]
)
def test_every_mode_of_the_engine_trains_it_alike(mode: str) -> None:
    task = Segmenting()
    for work, reference in zip(trained(task, mode), trained(task, "sequential"), strict=True):
        for name, values in reference.arrays.items():
            np.testing.assert_allclose(work.arrays[name], values, rtol=1e-4, atol=1e-4)
        assert work.metrics == pytest.approx(reference.metrics, abs=1e-4)


@pytest.mark.slow
def test_rows_that_mix_in_batch_statistics_are_not_taken_apart() -> None:
    with pytest.raises(ConfigError, match="rows that do not depend on each other"):
        trained(Segmenting("batch_statistics"), "batched:2")

"""Hospitals that hold CT or MR, never both of one patient, train one segmentation model.

After MulModSeg (Li et al. 2024, arXiv:2411.15576): a network conditioned on text embeddings of
modality and organ learns from unpaired CT and MR by turns. There, one machine alternates between
two data sets; here sites hold them, and a schedule says whose turn it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import nn

from fedalt.alternation.block import Block
from fedalt.alternation.site import Site
from fedalt.scenarios.unpaired_ct_mr.blocks import blocks_of
from fedalt.scenarios.unpaired_ct_mr.embeddings import Embeddings, load_embeddings
from fedalt.scenarios.unpaired_ct_mr.judge import balanced, judged
from fedalt.scenarios.unpaired_ct_mr.loss import dice_ce
from fedalt.scenarios.unpaired_ct_mr.networks import (
    NetworkSettings,
    Segmenter,
    initial,
    segmenter,
)
from fedalt.scenarios.unpaired_ct_mr.source import MODALITIES, Source
from fedalt.seeds import Seeds
from fedalt.task import Arrays

_TOLD = tuple(f"dice/{modality}" for modality in MODALITIES)


class SegmentationTask:
    """A source of scans and a network that segments them.

    ``embeddings`` names where the controller's text embeddings come from and ``template`` the
    prompt that they are of; ``device`` is where models are judged that no client holds: the
    server's, and all in the report.
    """

    def __init__(
        self,
        source: Source,
        network: NetworkSettings,
        embeddings: str,
        template: str = "V3",
        device: str = "cpu",
    ) -> None:
        self.source, self.network, self.device = source, network, device
        self.organs = source.organs
        network.check_size(source.size)
        self.embeddings: Embeddings | None = None
        if network.head != "plain":
            self.embeddings = load_embeddings(embeddings, MODALITIES, source.organs, template)

    @property
    def sites(self) -> Sequence[Site]:
        """The source's sites."""
        return self.source.sites

    @cached_property
    def blocks(self) -> Sequence[Block]:
        """``encoder``, ``decoder``, ``head`` and ``norm``: each array is in one of them."""
        return blocks_of(self.model())

    def model(self) -> Segmenter:
        """Build the network; initial weights come from :meth:`initial_arrays`."""
        return segmenter(self.network, self.organs, MODALITIES, self.embeddings)

    def make_ready(self) -> Iterator[tuple[int, int]]:
        """Read what a run will need; see :meth:`Source.make_ready`."""
        return self.source.make_ready()

    def initial_arrays(self, seeds: Seeds) -> dict[str, np.ndarray]:
        """Return first weights from the run's own generator."""
        return initial(self.model(), seeds)

    def site_data(self, site: int) -> tuple[torch.Tensor, ...]:
        """Return a site's training rows as a first order would draw them."""
        return self.source.draw(site, np.random.default_rng(0))

    def site_draw(self, site: int, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        """Return a site's training rows for one order: image, label, modality, known."""
        return self.source.draw(site, rng)

    def site_slices(self, site: int) -> Mapping[str, np.ndarray]:
        """Return a site's rows by modality."""
        return self.source.slices(site)

    def loss(
        self, model: nn.Module, batch: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
        """Return Dice loss plus cross-entropy over the labelled classes, and hard Dice."""
        image, label, modality, known = batch
        loss, metrics = dice_ce(model(image, modality), label, known)
        return loss, dict(metrics)

    def site_judge(self, model: nn.Module, site: int) -> tuple[int, dict[str, float]]:
        """Return the number of a site's test scans and their Dice: over organs, and of each."""
        scans = self.source.scans(site)
        table = judged(model, scans, self.organs, self.source.size)
        found = {"dice": table.mean("dice")}
        found |= {f"dice/{organ}": table.mean("dice", organ) for organ in self.organs}
        return len(scans), {name: value for name, value in found.items() if np.isfinite(value)}

    def evaluate(self, arrays: Arrays) -> dict[str, float]:
        """Judge a model on the server's scans: ``dice``, ``dice/ct``, ``dice/ct/liver`` …

        In ``dice`` modalities weigh alike, however many scans each has.
        """
        scans = self.source.held_by_server()
        if not scans:
            return {}
        table = judged(self.loaded(arrays), scans, self.organs, self.source.size)
        named = {name: v for name, v in table.metrics().items() if name.startswith(_TOLD)}
        return {**named, "dice": balanced(table)}

    def loaded(self, arrays: Arrays) -> Segmenter:
        """Return the network with some arrays, ready to predict on the task's device."""
        model = self.model()
        model.load_state_dict({name: torch.tensor(values) for name, values in arrays.items()})
        return model.eval().to(self.device)

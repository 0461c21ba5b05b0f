"""What a segmentation task learns from and is judged on, wherever the images come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from fedalt.alternation.site import Site
from fedalt.medical.site_table import MODALITIES as MODALITIES

BOTH = "both"
"""The attribute ``modality`` of a site that has images of each."""

Rows = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
"""Images (n, 1, *size) float32, labels (n, *size) int64, modalities (n,) int64 and which classes
are labelled at the row's site, known (n, K) bool. A modality is its place in ``MODALITIES``."""


@dataclass(frozen=True, eq=False)
class Scan:
    """One case to judge a model on: ``image`` (x, y[, z]) normalised, ``label`` of its shape.

    ``known`` (K,) says which classes are labelled, ``spacing`` is in mm; ``trained`` that the site
    trains on it too, as it holds none out.
    """

    name: str
    site: str
    modality: str
    image: np.ndarray
    label: np.ndarray
    known: np.ndarray
    spacing: tuple[float, ...]
    trained: bool = False


class Source(Protocol):
    """Sites and their images.

    ``size`` is what a network reads at once; ``described`` says in words which data these are.
    """

    organs: tuple[str, ...]
    size: tuple[int, ...]
    described: str

    @property
    def sites(self) -> Sequence[Site]:
        """The sites, each with an attribute ``modality``: ``ct``, ``mr`` or ``both``."""

    def make_ready(self) -> Iterator[tuple[int, int]]:
        """Read what a run will need, yielding how much of how much is done."""

    def draw(self, site: int, rng: np.random.Generator) -> Rows:
        """Return a site's training rows for one order."""

    def slices(self, site: int) -> Mapping[str, np.ndarray]:
        """Return the numbers of a site's rows by modality: the same at every draw."""

    def scans(self, site: int) -> Sequence[Scan]:
        """Return the cases that a site judges a model on."""

    def held_by_server(self) -> Sequence[Scan]:
        """Return the cases that the server judges a model on; none where it has no data."""

    def unseen(self) -> Sequence[Scan]:
        """Return cases of sites that take no part, which models are tested on at the end."""


def as_rows(
    images: np.ndarray, labels: np.ndarray, modalities: Sequence[str], known: np.ndarray
) -> Rows:
    """Return rows of images (n, *size), labels (n, *size), n modalities and known (n, K)."""
    places = [MODALITIES.index(name) for name in modalities]
    return (
        torch.from_numpy(np.ascontiguousarray(images, np.float32)).unsqueeze(1),
        torch.from_numpy(labels.astype(np.int64)),
        torch.tensor(places, dtype=torch.int64),
        torch.from_numpy(np.ascontiguousarray(known, bool)),
    )


def by_modality(modalities: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the numbers of the rows of each modality that there is."""
    names = np.array(modalities)
    found = {name: np.flatnonzero(names == name) for name in MODALITIES}
    return {name: rows for name, rows in found.items() if len(rows)}

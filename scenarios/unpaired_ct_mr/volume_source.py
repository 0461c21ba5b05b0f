"""Sites of NIfTI volumes: cases by site, prepared once, and patches drawn anew for each order.

The patches of a site's k-th training volume are rows k·p to k·p + p − 1 of every draw, so that
a row's modality never changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from fedalt.alternation.site import Site
from fedalt.errors import ConfigError, nearest
from fedalt.medical.augment import augment
from fedalt.medical.cached import cached
from fedalt.medical.label_map import check_organs
from fedalt.medical.patches import draw_patches
from fedalt.medical.prepare import Preparation, Prepared
from fedalt.medical.site_table import Case, check_sites
from fedalt.scenarios.unpaired_ct_mr.source import BOTH, Rows, Scan, as_rows, by_modality


@dataclass(frozen=True)
class PatchSettings:
    """How patches are drawn: two sides in ``size`` make axial slices, three make volumes.

    ``per_volume`` patches of each volume an order, ``foreground`` the probability that one is
    centred on an organ; with ``balanced`` each organ is as likely as another.
    """

    size: tuple[int, ...]
    per_volume: int = 2
    foreground: float = 0.5
    balanced: bool = False
    augmented: bool = True

    def __post_init__(self) -> None:
        if self.per_volume < 1:
            raise ConfigError(f"task.patches.per_volume={self.per_volume}: at least 1 expected")
        if not 0.0 <= self.foreground <= 1.0:
            raise ConfigError(
                f"task.patches.foreground={self.foreground}: a probability from 0 to 1 expected"
            )


class VolumeSource:
    """The volumes of a federation's cases; ``unseen`` names sites that take no part."""

    def __init__(
        self,
        cases: Sequence[Case],
        preparation: Preparation,
        patches: PatchSettings,
        unseen: Sequence[str] = (),
        cache: Path | None = None,
    ) -> None:
        names = list(dict.fromkeys(case.site for case in cases))
        for name in unseen:
            if name not in names:
                raise ConfigError(f"task.unseen: no site '{name}'{nearest(name, names)}")
        check_sites(cases, unseen)
        maps = {f"the label map of '{case.label}'": case.ids for case in cases}
        check_organs(preparation.organs, maps, preparation.merge)
        self.organs, self.size = preparation.organs, patches.size
        self.described = f"{len(cases)} volumes of {len(names)} sites"
        self._patches, self._unseen = patches, tuple(unseen)
        self._names = [name for name in names if name not in unseen]
        if not self._names:
            raise ConfigError("task.unseen names every site, so that none is left to train")
        self._cases = cases
        self._volume = lru_cache(maxsize=None)(lambda case: cached(case, preparation, cache))

    def make_ready(self) -> Iterator[tuple[int, int]]:
        """Prepare every volume that is not in the cache yet; yields how many of how many are.

        Raises :class:`DataError` naming the first file that cannot be used.
        """
        for done, case in enumerate(self._cases, start=1):
            self._volume(case)
            yield done, len(self._cases)

    @cached_property
    def sites(self) -> Sequence[Site]:
        """The sites that train; the attribute ``modality`` follows from their cases."""
        return [
            Site(i, name, len(self._rows(i)), {"modality": _modality(self._of(name, "train"))})
            for i, name in enumerate(self._names)
        ]

    def draw(self, site: int, rng: np.random.Generator) -> Rows:
        """Return patches of a site's training volumes."""
        volumes, patches = self._volumes(self._of(self._names[site], "train")), self._patches
        images, labels, which = draw_patches(
            volumes,
            patches.size,
            patches.per_volume,
            rng,
            patches.foreground,
            balanced=patches.balanced,
        )
        modalities = [volumes[k].modality for k in which]
        if patches.augmented:
            images, labels = augment(images, labels, modalities, rng)
        return as_rows(images, labels, modalities, np.stack([volumes[k].known for k in which]))

    def slices(self, site: int) -> Mapping[str, np.ndarray]:
        """Return the numbers of a site's rows by modality."""
        return by_modality(self._rows(site))

    def scans(self, site: int) -> Sequence[Scan]:
        """Return a site's test volumes; its training volumes where it holds none out."""
        name = self._names[site]
        held_out = self._of(name, "test")
        cases = held_out or self._of(name, "train")
        return [_scan(volume, trained=not held_out) for volume in self._volumes(cases)]

    def held_by_server(self) -> Sequence[Scan]:
        """Return none: the volumes lie at the sites."""
        return []

    def unseen(self) -> Sequence[Scan]:
        """Return all volumes of the sites that take no part."""
        cases = [case for case in self._cases if case.site in self._unseen]
        return [_scan(volume) for volume in self._volumes(cases)]

    def _of(self, site: str, split: str) -> list[Case]:
        return [case for case in self._cases if case.site == site and case.split == split]

    def _rows(self, site: int) -> list[str]:
        """Return the modality of each of a site's rows."""
        cases = self._of(self._names[site], "train")
        return [case.modality for case in cases for _ in range(self._patches.per_volume)]

    def _volumes(self, cases: Sequence[Case]) -> list[Prepared]:
        return [self._volume(case) for case in cases]


def _modality(cases: Sequence[Case]) -> str:
    found = {case.modality for case in cases}
    return found.pop() if len(found) == 1 else BOTH


def _scan(volume: Prepared, *, trained: bool = False) -> Scan:
    return Scan(
        name=volume.name,
        site=volume.site,
        modality=volume.modality,
        image=volume.image,
        label=volume.label,
        known=volume.known,
        spacing=tuple(float(edge) for edge in volume.spacing),
        trained=trained,
    )

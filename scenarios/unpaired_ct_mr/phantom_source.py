"""Sites of phantoms: hospitals with a scanner each, whose subjects nobody else has.

Every site and every test set has subjects of its own, drawn from (seed, place), so that a change
of one leaves the others as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np

from fedalt.alternation.site import Site
from fedalt.data.folder import data_folder
from fedalt.errors import ConfigError, nearest
from fedalt.medical.augment import augment
from fedalt.medical.intensity import normalise
from fedalt.scenarios.unpaired_ct_mr.anatomy import Anatomy, analytic_abdomen, anatomy, real_abdomen
from fedalt.scenarios.unpaired_ct_mr.phantom import check_organs, phantoms, scanner
from fedalt.scenarios.unpaired_ct_mr.source import (
    BOTH,
    MODALITIES,
    Rows,
    Scan,
    as_rows,
    by_modality,
)
from fedalt.scenarios.unpaired_ct_mr.warps import Warp
from fedalt.seeds import Seeds

ANATOMIES = ("auto", "analytic", "real")


@dataclass(frozen=True)
class PhantomSettings:
    """Which phantoms lie where.

    ``vendors`` and ``protocols`` are by modality; sites get the vendors in turn. A site has
    ``images`` training images of each modality it holds and judges models on ``site_test``; the
    server on ``server_test`` of each modality, and on as many of the vendor ``unseen``.
    ``labelled`` names the organs that a site labels (``ct-0``), or all sites of a modality
    (``ct``); a site that neither speaks of labels all.
    """

    organs: tuple[str, ...]
    size: tuple[int, ...] = (64, 64)
    sites: Mapping[str, int] = field(default_factory=lambda: {"ct": 2, "mr": 2})
    images: int = 30
    site_test: int = 10
    server_test: int = 24
    vendors: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: dict.fromkeys(MODALITIES, ("a", "b"))
    )
    protocols: Mapping[str, str] = field(default_factory=dict)
    unseen: str = "c"
    labelled: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    anatomy: str = "auto"
    augment: bool = False
    warp: Warp = field(default_factory=Warp)
    seed: int = 0


@dataclass(frozen=True)
class _Hospital:
    name: str
    modalities: tuple[str, ...]
    vendor: Mapping[str, str]


class PhantomSource:
    """Phantoms by site; images are made when first asked for and then kept."""

    def __init__(self, settings: PhantomSettings, root: str | None = None) -> None:
        self._settings = settings
        self.organs, self.size = settings.organs, settings.size
        _check(settings)
        self._hospitals = _hospitals(settings)
        _check_labelled(settings, [each.name for each in self._hospitals])
        self._anatomy = _anatomy(settings, root)
        check_organs(self._anatomy, settings.organs)
        self.described = f"phantoms of {self._anatomy.source}"
        self._made = lru_cache(maxsize=None)(self._make)

    def make_ready(self) -> Iterator[tuple[int, int]]:
        """Yield nothing: phantoms cannot be faulty, and are made when first asked for."""
        return iter(())

    @cached_property
    def sites(self) -> Sequence[Site]:
        """The hospitals; attributes ``modality`` and ``vendor``."""
        return [
            Site(i, each.name, self._settings.images * len(each.modalities), _attributes(each))
            for i, each in enumerate(self._hospitals)
        ]

    def draw(self, site: int, rng: np.random.Generator) -> Rows:
        """Return a site's images, changed at random where that is asked for."""
        images, labels, modalities, known = self._training(site)
        if self._settings.augment:
            images, labels = augment(images, labels, modalities, rng)
        return as_rows(images, labels, modalities, known)

    def slices(self, site: int) -> Mapping[str, np.ndarray]:
        """Return the numbers of a site's rows by modality."""
        return by_modality(self._names(site))

    def scans(self, site: int) -> Sequence[Scan]:
        """Return a site's test images, of subjects that it does not train on."""
        hospital, count = self._hospitals[site], self._settings.site_test
        found = []
        for modality in hospital.modalities:
            vendor = hospital.vendor[modality]
            found += self._scans(modality, vendor, hospital.name, count, "test")
        return found

    def held_by_server(self) -> Sequence[Scan]:
        """Return test images of each modality by its sites' vendors in turn.

        A modality that no site has is scanned by the vendors that are named for it.
        """
        found = []
        for modality in MODALITIES:
            used = [h.vendor[modality] for h in self._hospitals if modality in h.modalities]
            vendors = list(dict.fromkeys(used or self._settings.vendors[modality]))
            for place, vendor in enumerate(vendors):
                count = len(range(place, self._settings.server_test, len(vendors)))
                if count:
                    found += self._scans(modality, vendor, f"server {vendor}", count, "server")
        return found

    def unseen(self) -> Sequence[Scan]:
        """Return test images of each modality by a vendor that no site has."""
        vendor, count = self._settings.unseen, self._settings.server_test
        return [
            scan
            for modality in MODALITIES
            for scan in self._scans(modality, vendor, f"unseen {vendor}", count, "unseen")
        ]

    def _names(self, site: int) -> list[str]:
        return [m for m in self._hospitals[site].modalities for _ in range(self._settings.images)]

    def _training(self, site: int) -> tuple[np.ndarray, np.ndarray, list[str], np.ndarray]:
        hospital, count = self._hospitals[site], self._settings.images
        made = [
            self._made(m, hospital.vendor[m], hospital.name, count, "train")
            for m in hospital.modalities
        ]
        known = np.repeat(
            [self._known(hospital.name, m) for m in hospital.modalities], count, axis=0
        )
        images, labels = (np.concatenate(parts) for parts in zip(*made, strict=True))
        # Organs that a site does not label are background there.
        labelled = known[np.arange(len(labels)).reshape(-1, *[1] * len(self.size)), labels]
        return images, np.where(labelled, labels, 0), self._names(site), known

    def _known(self, site: str, modality: str) -> np.ndarray:
        """Return which classes (K,) a site labels in images of a modality."""
        told = self._settings.labelled
        named = told.get(site) or told.get(modality) or self.organs
        return np.array([True, *(organ in named for organ in self.organs)])

    def _scans(self, modality: str, vendor: str, site: str, count: int, use: str) -> list[Scan]:
        images, labels = self._made(modality, vendor, site, count, use)
        known, spacing = np.ones(1 + len(self.organs), bool), self._anatomy.spacing
        return [
            Scan(f"{modality} {vendor} {i}", site, modality, image, label, known, spacing)
            for i, (image, label) in enumerate(zip(images, labels, strict=True))
        ]

    def _make(
        self, modality: str, vendor: str, site: str, count: int, use: str
    ) -> tuple[np.ndarray, np.ndarray]:
        settings = self._settings
        rng = Seeds(settings.seed).at("phantoms", use, site, modality).numpy()
        device = scanner(modality, vendor, settings.protocols.get(modality))
        made = phantoms(self._anatomy, device, count, rng, self.organs, settings.warp)
        images = [normalise(image, modality) for image in made.images]
        return np.stack(images).astype(np.float32), made.labels


def _check(settings: PhantomSettings) -> None:
    keyed = {"sites": (*MODALITIES, BOTH)} | dict.fromkeys(("vendors", "protocols"), MODALITIES)
    for key, known in keyed.items():
        for name in getattr(settings, key):
            if name not in known:
                raise ConfigError(
                    f"task.phantoms.{key}: unknown modality '{name}'{nearest(name, known)}"
                )
    if settings.anatomy not in ANATOMIES:
        raise ConfigError(
            f"task.phantoms.anatomy: unknown '{settings.anatomy}'"
            f"{nearest(settings.anatomy, ANATOMIES)}"
        )
    for key in ("images", "site_test", "server_test"):
        if getattr(settings, key) < 1:
            raise ConfigError(f"task.phantoms.{key}={getattr(settings, key)}: at least 1 expected")
    if min(settings.sites.values(), default=0) < 0 or not sum(settings.sites.values()):
        raise ConfigError(f"task.phantoms.sites={dict(settings.sites)}: one site or more expected")
    _check_scanners(settings)


def _check_labelled(settings: PhantomSettings, sites: Sequence[str]) -> None:
    known = (*MODALITIES, *sites)
    for place, organs in settings.labelled.items():
        if place not in known:
            raise ConfigError(
                f"task.phantoms.labelled: unknown site or modality '{place}'{nearest(place, known)}"
            )
        for organ in organs:
            if organ not in settings.organs:
                raise ConfigError(
                    f"task.phantoms.labelled.{place}: unknown organ '{organ}'"
                    f"{nearest(organ, settings.organs)}"
                )


def _check_scanners(settings: PhantomSettings) -> None:
    """Refuse vendors and protocols that are none before anything is trained or made."""
    for modality in MODALITIES:
        if not settings.vendors.get(modality):
            raise ConfigError(f"task.phantoms.vendors: none is named for the modality '{modality}'")
        if settings.unseen in settings.vendors[modality]:
            raise ConfigError(
                f"task.phantoms.unseen={settings.unseen} is in task.phantoms.vendors.{modality}; "
                "it is for a test on scanners that took no part, so name another"
            )
        for vendor in (*settings.vendors[modality], settings.unseen):
            try:
                scanner(modality, vendor, settings.protocols.get(modality))
            except ConfigError as error:
                raise ConfigError(f"task.phantoms: {error}") from error


def _anatomy(settings: PhantomSettings, root: str | None) -> Anatomy:
    if settings.anatomy == "analytic":
        return analytic_abdomen(settings.size)
    folder = data_folder(root)
    if settings.anatomy == "real":
        return real_abdomen(folder.path, settings.size)
    return anatomy(folder.path if folder.named else None, settings.size, len(settings.size))


def _hospitals(settings: PhantomSettings) -> list[_Hospital]:
    found = []
    for kind in (*MODALITIES, BOTH):
        modalities = MODALITIES if kind == BOTH else (kind,)
        for number in range(settings.sites.get(kind, 0)):
            turn = {m: settings.vendors[m] for m in modalities}
            vendor = {m: names[number % len(names)] for m, names in turn.items()}
            found.append(_Hospital(f"{kind}-{number}", modalities, vendor))
    return found


def _attributes(hospital: _Hospital) -> dict[str, str]:
    kind = hospital.modalities[0] if len(hospital.modalities) == 1 else BOTH
    return {"modality": kind, "vendor": "+".join(dict.fromkeys(hospital.vendor.values()))}

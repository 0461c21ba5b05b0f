"""Phantoms: images and organ labels of random subjects, as one scanner sees them.

Shapes, tissue values and scanner noise are drawn from three streams, and each subject has its
own: two scanners given the same generator state see the same subjects, and more subjects leave
the first ones as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedalt.errors import ConfigError, nearest
from fedalt.scenarios.unpaired_ct_mr.anatomy import Anatomy
from fedalt.scenarios.unpaired_ct_mr.ct_scanner import CTScanner
from fedalt.scenarios.unpaired_ct_mr.mr_scanner import MRScanner
from fedalt.scenarios.unpaired_ct_mr.tissues import ORGANS, Jitter, properties
from fedalt.scenarios.unpaired_ct_mr.warps import Warp, subject

Scanner = CTScanner | MRScanner

PRESETS: dict[tuple[str, str], dict[str, Scanner]] = {
    ("ct", "portal"): {
        "a": CTScanner("portal", psf_mm=3.0, noise_hu=12.0),
        "b": CTScanner("portal", psf_mm=2.0, noise_hu=20.0, shift_hu=6.0, scale=1.01),
        "c": CTScanner("portal", psf_mm=5.0, noise_hu=9.0, shift_hu=-8.0, scale=0.985),
    },
    ("mr", "se"): {
        "a": MRScanner("se", 2500, 80, field=1.5),
        "b": MRScanner("se", 3500, 90, field=3.0, bias=0.5, noise=0.04, gain=320.0),
        "c": MRScanner("se", 2000, 65, field=1.5, bias=0.2, noise=0.09, gain=2400.0, psf_mm=4.5),
    },
    ("mr", "spgr"): {
        "a": MRScanner("spgr", 120, 4.6, 70, field=1.5),
        "b": MRScanner("spgr", 150, 2.3, 75, field=3.0, bias=0.5, noise=0.04, gain=320.0),
        "c": MRScanner(
            "spgr", 80, 4.6, 60, field=1.5, bias=0.2, noise=0.09, gain=2400.0, psf_mm=4.5
        ),
    },
}
"""Scanners by modality and protocol, then vendor."""
PRESETS["ct", "unenhanced"] = {
    vendor: replace(each, phase="unenhanced")
    for vendor, each in PRESETS["ct", "portal"].items()
    if isinstance(each, CTScanner)
}
DEFAULT_PROTOCOL = {"ct": "portal", "mr": "spgr"}


@dataclass(frozen=True)
class Phantoms:
    """Images (n, x, y[, z]) float32 in the scanner's units, labels of the same shape uint8.

    Label 0 is background, label i + 1 the i-th organ.
    """

    images: np.ndarray
    labels: np.ndarray


def scanner(modality: str, vendor: str = "a", protocol: str | None = None) -> Scanner:
    """Return a vendor's scanner by modality and protocol.

    ``ct`` has ``portal`` (default) and ``unenhanced``; ``mr`` has ``spgr`` (T1-weighted, default)
    and ``se`` (T2-weighted). Vendors ``a``, ``b`` and ``c`` differ in sharpness, noise,
    calibration, coil and, for MR, in field and timing. Raises :class:`ConfigError` naming what
    there is.
    """
    if modality not in DEFAULT_PROTOCOL:
        raise ConfigError(f"no modality '{modality}'{nearest(modality, DEFAULT_PROTOCOL)}")
    protocol = protocol or DEFAULT_PROTOCOL[modality]
    if (modality, protocol) not in PRESETS:
        known = [name for kind, name in PRESETS if kind == modality]
        raise ConfigError(f"{modality}: no protocol '{protocol}'{nearest(protocol, known)}")
    vendors = PRESETS[modality, protocol]
    if vendor not in vendors:
        raise ConfigError(f"{modality}: no vendor '{vendor}'{nearest(vendor, vendors)}")
    return vendors[vendor]


def phantoms(
    anatomy: Anatomy,
    scanner: Scanner,
    count: int,
    rng: np.random.Generator,
    organs: Sequence[str] = ORGANS,
    warp: Warp | None = None,
    jitter: Jitter | None = None,
) -> Phantoms:
    """Draw ``count`` subjects and scan them.

    Raises :class:`ConfigError` for an organ that the anatomy lacks and a negative count.
    """
    if count < 0:
        raise ConfigError(f"phantoms: count {count} must not be negative")
    classes = _classes(anatomy, organs)
    warp = warp or Warp()
    streams = [int(word) for word in rng.integers(2**62, size=3)]
    images = np.empty((count, *anatomy.size), np.float32)
    labels = np.empty((count, *anatomy.size), np.uint8)
    for i in range(count):
        shape, tissue, noise = (np.random.default_rng([word, i]) for word in streams)
        drawn = subject(anatomy, warp, shape)
        values = properties(drawn.names, tissue, jitter)
        images[i] = scanner.image(drawn.seen, values, anatomy.spacing, noise)
        labels[i] = classes[drawn.tissues]
    return Phantoms(images, labels)


def check_organs(anatomy: Anatomy, organs: Sequence[str]) -> None:
    """Raise :class:`ConfigError` for an organ that the anatomy lacks or that is named twice."""
    _classes(anatomy, organs)


def _classes(anatomy: Anatomy, organs: Sequence[str]) -> np.ndarray:
    """Return each tissue id's class (k,) uint8."""
    classes = np.zeros(len(anatomy.names), np.uint8)
    for i, organ in enumerate(organs):
        if organ not in anatomy.names:
            known = nearest(organ, anatomy.names)
            raise ConfigError(f"phantoms: the anatomy has no organ '{organ}'{known}")
        if classes[anatomy.names.index(organ)]:
            raise ConfigError(f"phantoms: organ '{organ}' is named twice")
        classes[anatomy.names.index(organ)] = i + 1
    return classes

"""What tissues look like to a scanner: CT numbers, T1, T2 and proton density.

T1 and T2: de Bazelaire et al., Radiology 230:652 (2004) for the organs, muscle, marrow and fat;
Stanisz et al., Magn Reson Med 54:507 (2005) for blood; Bojorquez et al., Magn Reson Imaging
35:69 (2017) for the spread between studies. Kidneys are the mean of cortex and medulla, whose
border these phantoms do not draw. CT numbers: unenhanced and portal-venous values as in common
radiology tables. Fluid in the stomach, bile and bowel walls vary with the meal, and proton
densities with what is counted as visible, and the T2 of venous blood with its oxygen: plausible
values, not measured ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedalt.errors import ConfigError, nearest

FIELDS = (1.5, 3.0)
"""Field strengths in tesla at which relaxation times are known."""


@dataclass(frozen=True)
class Tissue:
    """One tissue: HU without contrast agent and in the portal-venous phase, T1 and T2 in ms at
    1.5 T and 3 T, proton density (water 1), and whether it is blood that flows."""

    hu: float
    hu_portal: float
    t1: tuple[float, float]
    t2: tuple[float, float]
    proton_density: float
    flows: bool = False


TISSUES = {
    "air": Tissue(-1000, -1000, (1000, 1000), (10, 10), 0.0),
    "fat": Tissue(-100, -100, (343, 382), (58, 68), 0.9),
    "muscle": Tissue(55, 65, (856, 898), (27, 29), 0.8),
    "bone": Tissue(220, 240, (549, 586), (49, 49), 0.5),
    "bowel": Tissue(32, 70, (900, 1050), (55, 55), 0.85),
    "liver": Tissue(58, 112, (586, 809), (46, 34), 0.8),
    "spleen": Tissue(48, 125, (1057, 1328), (79, 61), 0.87),
    "kidney_right": Tissue(32, 180, (1189, 1344), (86, 79), 0.87),
    "kidney_left": Tissue(32, 180, (1189, 1344), (86, 79), 0.87),
    "aorta": Tissue(42, 155, (1441, 1932), (290, 275), 0.9, flows=True),
    "inferior_vena_cava": Tissue(40, 140, (1441, 1932), (181, 120), 0.9, flows=True),
    "stomach": Tissue(18, 24, (2000, 2300), (160, 150), 0.95),
    "gallbladder": Tissue(8, 8, (2400, 2600), (350, 320), 1.0),
    "pancreas": Tissue(42, 98, (584, 725), (46, 43), 0.85),
}
"""Tissues by name; their order gives the ids of the anatomies of this folder."""
NAMES = tuple(TISSUES)
BACKGROUND = ("air", "fat", "muscle", "bone", "bowel")
"""Tissues that are never an organ to segment."""
ORGANS = ("liver", "spleen", "kidney_right", "kidney_left", "aorta", "stomach")
"""Segmentation targets by default: wide enough to be seen at 64 × 64, in CT and in MR."""


@dataclass(frozen=True)
class Jitter:
    """How far people differ: standard deviations, between subjects, of a tissue's values.

    ``hu`` is added to each tissue's CT number; ``enhancement`` scales what the contrast agent
    adds in all of a subject's tissues; ``t1``, ``t2`` and ``proton_density`` scale each tissue's
    (logarithmic normal). Between-study spreads of 5-15 % are usual (Bojorquez et al. 2017).
    """

    hu: float = 4.0
    enhancement: float = 0.1
    t1: float = 0.06
    t2: float = 0.08
    proton_density: float = 0.03

    def __post_init__(self) -> None:
        given = (self.hu, self.enhancement, self.t1, self.t2, self.proton_density)
        if not all(0 <= value < math.inf for value in given):
            raise ConfigError("jitter: standard deviations must be finite and not negative")


@dataclass(frozen=True)
class Properties:
    """One subject's tissues by id: HU (k,), T1 and T2 in ms by field (2, k), the rest (k,)."""

    hu: np.ndarray
    hu_portal: np.ndarray
    t1: np.ndarray
    t2: np.ndarray
    proton_density: np.ndarray
    flows: np.ndarray


def properties(
    names: Sequence[str],
    rng: np.random.Generator | None = None,
    jitter: Jitter | None = None,
) -> Properties:
    """Return tissues' values in the order of their names: the table's, or a subject's with ``rng``.

    A name may come more than once, each with a jitter of its own. Raises :class:`ConfigError`
    for a name that the table lacks.
    """
    for name in names:
        if name not in TISSUES:
            raise ConfigError(f"no tissue is named '{name}'{nearest(name, TISSUES)}")
    rows = [TISSUES[name] for name in names]
    hu = np.array([row.hu for row in rows], float)
    agent = np.array([row.hu_portal for row in rows], float) - hu
    t1 = np.array([row.t1 for row in rows], float).T
    t2 = np.array([row.t2 for row in rows], float).T
    density = np.array([row.proton_density for row in rows], float)
    if rng is not None:
        by = jitter or Jitter()
        solid = density > 0
        hu = hu + solid * by.hu * rng.standard_normal(len(rows))
        agent = agent * np.exp(by.enhancement * rng.standard_normal())
        t1 = t1 * np.exp(by.t1 * rng.standard_normal(len(rows)))
        t2 = t2 * np.exp(by.t2 * rng.standard_normal(len(rows)))
        density = density * np.exp(by.proton_density * rng.standard_normal(len(rows)))
    flows = np.array([row.flows for row in rows])
    return Properties(hu, hu + agent, t1, t2, density, flows)

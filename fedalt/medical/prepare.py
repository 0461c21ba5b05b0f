"""From a case's files to arrays to train on: one orientation, spacing, range and set of classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage  # type: ignore[import-untyped]

from fedalt.errors import ConfigError, DataError
from fedalt.medical.intensity import normalise
from fedalt.medical.label_map import class_of_id, known_classes, parts_of, to_classes
from fedalt.medical.site_table import Case
from fedalt.medical.volume import Volume, read_pair, spacing_of


@dataclass(frozen=True)
class Preparation:
    """How cases become arrays: the task's organs and the grid.

    ``spacing`` is in mm by axis (right, front, head); ``merge`` gives an organ the names it is
    made of; ``margin``, in mm, crops a volume to the box around its labelled organs and so
    much more, and must be None where a volume is to be seen as a scanner gives it.
    """

    organs: tuple[str, ...]
    spacing: tuple[float, float, float] = (1.5, 1.5, 2.0)
    merge: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    margin: float | None = None

    def __post_init__(self) -> None:
        if not self.organs:
            raise ConfigError("a preparation needs one organ or more")
        if len(self.spacing) != 3 or min(self.spacing) <= 0:
            raise ConfigError(f"the spacing is {self.spacing}; give three edges above 0, in mm")
        if self.margin is not None and self.margin < 0:
            raise ConfigError(f"the margin is {self.margin} mm; give 0 or more, or none")


@dataclass(frozen=True)
class Prepared:
    """A case ready to train on; arrays may be memory maps and are not to be written to.

    ``image`` (x, y, z) float32; ``label`` (x, y, z) uint8, classes; ``known`` (K,), which
    classes the case labels; ``spacing`` (3,) in mm; ``affine`` (4, 4), voxels to mm in RAS+;
    ``foreground`` (n,), flat indices of the voxels of organs, class by class in their order,
    where class k's are ``foreground[ends[k - 1]:ends[k]]`` with ``ends`` (K,).
    """

    name: str
    site: str
    modality: str
    image: np.ndarray
    label: np.ndarray
    known: np.ndarray
    spacing: np.ndarray
    affine: np.ndarray
    foreground: np.ndarray
    ends: np.ndarray


def prepare(case: Case, preparation: Preparation) -> Prepared:
    """Read a case, bring it to RAS+ and the spacing, normalise it, and name its classes.

    Raises :class:`DataError` naming the file for what :func:`read_pair` refuses, a label map
    with none of the organs, and a label without a voxel of them.
    """
    organs = preparation.organs
    classes = class_of_id(case.ids, organs, preparation.merge)
    if not classes:
        wanted = ", ".join(part for organ in organs for part in parts_of(organ, preparation.merge))
        raise DataError(f"the label map of '{case.label}' has none of the organs {wanted}")
    image, ids = read_pair(case)
    label = Volume(to_classes(ids.values, classes), ids.affine)
    _check_mask(case, label.values, classes, f"its ids: {_first(np.unique(ids.values))}")
    image = resample(image, preparation.spacing, order=1)
    label = resample(label, preparation.spacing, order=0)
    _check_mask(case, label.values, classes, f"at {preparation.spacing} mm: a finer spacing helps")
    try:
        values = normalise(image.values, case.modality)
    except DataError as error:
        raise DataError(f"the image '{case.image}': {error}") from error
    image = Volume(values, image.affine)
    if preparation.margin is not None:
        box = _box(label, preparation.margin)
        image, label = _cropped(image, box), _cropped(label, box)
    return from_arrays(
        image.values,
        label.values,
        case.modality,
        known_classes(classes, organs),
        image.affine,
        name=case.name,
        site=case.site,
    )


def from_arrays(
    image: np.ndarray,
    label: np.ndarray,
    modality: str,
    known: np.ndarray,
    affine: np.ndarray,
    *,
    name: str = "",
    site: str = "",
) -> Prepared:
    """Return a volume (x, y, z) that is in memory and normalised, such as a phantom, as prepared.

    ``label`` holds classes as uint8, ``known`` (K,) which of them it may have, ``affine``
    (4, 4) the grid in mm. A label without organs is allowed.
    """
    if image.shape != label.shape or image.ndim != 3:
        raise DataError(
            f"'{name}': the image has shape {image.shape} and the label {label.shape}; "
            "both must be the same (x, y, z)"
        )
    foreground, ends = foreground_by_class(label, len(known))
    return Prepared(
        name=name,
        site=site,
        modality=modality,
        image=image,
        label=label,
        known=known,
        spacing=spacing_of(affine),
        affine=affine,
        foreground=foreground,
        ends=ends,
    )


def resample(volume: Volume, spacing: tuple[float, float, float], order: int) -> Volume:
    """Return a volume at another spacing in mm: ``order`` 1 is linear, 0 the nearest voxel.

    The first voxel's centre stays; shape and values are those of monai's ``Spacing``. At
    halfway places the nearest voxel is always the upper one, where torch rounds to even and
    so triples every other voxel of a label when the spacing is halved.
    """
    step = np.array(spacing) / volume.spacing
    shape = np.rint((np.array(volume.values.shape) - 1) / step + 1).astype(int)
    affine = volume.affine.copy()
    affine[:3, :3] *= step
    if np.allclose(step, 1.0, atol=1e-5) and tuple(shape) == volume.values.shape:
        return Volume(np.ascontiguousarray(volume.values), affine)
    values = ndimage.affine_transform(
        volume.values, step, output_shape=tuple(shape), order=order, mode="nearest"
    )
    return Volume(values, affine)


def foreground_by_class(label: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return organs' voxels as flat indices, class by class, and where each class ends.

    The second array (classes,) begins with 0: class k is ``[ends[k - 1]:ends[k]]`` of the first.
    """
    flat = np.flatnonzero(label)
    values = label.reshape(-1)[flat]
    order = np.argsort(values, kind="stable")
    ends = np.cumsum(np.bincount(values, minlength=classes))
    size = np.uint32 if label.size < 2**32 else np.int64
    return flat[order].astype(size), ends


def _check_mask(case: Case, label: np.ndarray, classes: Mapping[int, int], detail: str) -> None:
    if not label.any():
        names = ", ".join(sorted({case.ids[number] for number in classes})[:8])
        raise DataError(
            f"the label '{case.label}' has no voxel of {names} ({detail}); check its label "
            "map, or leave the case out"
        )


def _first(values: np.ndarray, most: int = 8) -> str:
    more = f" and {values.size - most} more" if values.size > most else ""
    return ", ".join(map(str, values[:most])) + more


def _box(label: Volume, margin: float) -> tuple[slice, slice, slice]:
    """Return the box around all organs and a margin in mm, within the volume."""
    (found,) = ndimage.find_objects((label.values > 0).astype(np.uint8))
    more = np.ceil(margin / label.spacing).astype(int)
    x, y, z = (
        slice(max(0, part.start - wide), part.stop + wide)
        for part, wide in zip(found, more, strict=True)
    )
    return x, y, z


def _cropped(volume: Volume, box: tuple[slice, slice, slice]) -> Volume:
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [part.start for part in box]
    return Volume(np.ascontiguousarray(volume.values[box]), affine)

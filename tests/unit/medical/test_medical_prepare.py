"""Preparation: spacing, intensities and classes against scipy, monai and plain numpy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai.data.meta_tensor import MetaTensor
from monai.transforms.intensity.array import NormalizeIntensity, ScaleIntensityRange
from monai.transforms.spatial.array import Spacing
from nifti_files import AFFINE, IDS, SHAPE, body, write, write_case
from scipy import ndimage

from fedalt.errors import ConfigError, DataError
from fedalt.medical.intensity import normalise, window, zscore
from fedalt.medical.prepare import Preparation, from_arrays, prepare, resample
from fedalt.medical.volume import Volume

ORGANS = ("liver", "spleen")
NATIVE = (3.0, 2.0, 4.0)


def at(spacing: tuple[float, float, float], values: np.ndarray, order: int) -> np.ndarray:
    """Return values at another spacing by scipy's general interpolation, place by place."""
    steps = [new / old for old, new in zip(NATIVE, spacing, strict=True)]
    shape = [round((n - 1) / step + 1) for n, step in zip(SHAPE, steps, strict=True)]
    places = np.meshgrid(
        *(np.arange(n) * s for n, s in zip(shape, steps, strict=True)), indexing="ij"
    )
    if order == 0:
        places = [np.floor(place + 0.5) for place in places]
    result: np.ndarray = ndimage.map_coordinates(values, places, order=order, mode="nearest")
    return result


@pytest.mark.parametrize("spacing", [(1.5, 1.5, 2.0), (2.0, 2.0, 2.0), (6.0, 5.0, 4.0)])
def test_spacing_is_that_of_scipy_and_monai(spacing: tuple[float, float, float]) -> None:
    image, ids = body()
    image = image.astype(np.float32)
    result = resample(Volume(image, AFFINE), spacing, order=1)
    np.testing.assert_allclose(result.values, at(spacing, image, 1), atol=1e-3)
    np.testing.assert_allclose(result.spacing, spacing)
    reference = Spacing(spacing, padding_mode="border")(MetaTensor(image[None], affine=AFFINE))
    np.testing.assert_allclose(result.values, reference[0].numpy(), atol=1e-3)
    np.testing.assert_allclose(result.affine, reference.affine.numpy(), atol=1e-9)
    label = resample(Volume(ids, AFFINE), spacing, order=0).values
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, at(spacing, ids, 0))


def test_half_the_spacing_doubles_every_voxel_of_a_label() -> None:
    ids = np.arange(6, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    halved = resample(Volume(ids, np.eye(4)), (0.5, 1.0, 1.0), order=0).values[:, 0, 0]
    assert halved.tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SLA"])
@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_a_case_is_the_same_in_any_orientation(tmp_path: Path, axes: str, modality: str) -> None:
    case = write_case(tmp_path, modality=modality, axes=axes)
    result = prepare(case, Preparation(ORGANS, (2.0, 2.0, 2.0)))
    image, ids = body()
    coarse = at((2.0, 2.0, 2.0), image.astype(np.float32), 1)
    expected = normalise(coarse, modality)
    np.testing.assert_allclose(result.image, expected, atol=1e-4)
    label = at((2.0, 2.0, 2.0), ids, 0)
    np.testing.assert_array_equal(result.label, np.select([label == 5, label == 1], [1, 2], 0))
    assert (result.image.dtype, result.label.dtype) == (np.float32, np.uint8)
    assert (result.name, result.site, result.modality) == ("a", "north", modality)
    assert result.known.tolist() == [True, True, True]
    np.testing.assert_allclose(result.spacing, 2.0)
    assert [np.argwhere(result.label == k)[:, 0].mean() > 9 for k in (1, 2)] == [True, False]


def test_a_labels_rounded_affine_makes_no_other_shape(tmp_path: Path) -> None:
    case = write_case(tmp_path)
    for factor in (1 - 1e-6, 1 + 1e-6):
        # Whole spacings of 2 mm end halfway between two shapes along the first axis.
        write(case.label, body()[1], AFFINE * factor)
        result = prepare(case, Preparation(ORGANS, (2.0, 2.0, 2.0)))
        assert result.image.shape == result.label.shape == (20, 10, 15)


def test_foreground_lists_each_classs_voxels(tmp_path: Path) -> None:
    result = prepare(write_case(tmp_path), Preparation((*ORGANS, "aorta"), NATIVE))
    assert result.known.tolist() == [True, True, True, False]
    for k in (1, 2, 3):
        own = result.foreground[result.ends[k - 1] : result.ends[k]]
        np.testing.assert_array_equal(own, np.flatnonzero(result.label == k))
    assert len(result.foreground) == result.ends[-1] == (result.label > 0).sum()


def test_names_merge_into_one_organ(tmp_path: Path) -> None:
    preparation = Preparation(("belly",), NATIVE, {"belly": ("liver", "spleen")})
    result = prepare(write_case(tmp_path), preparation)
    np.testing.assert_array_equal(result.label, body()[1] > 0)


def test_a_margin_crops_to_the_organs_and_keeps_their_place(tmp_path: Path) -> None:
    case = write_case(tmp_path)
    whole = prepare(case, Preparation(ORGANS, NATIVE))
    box = prepare(case, Preparation(ORGANS, NATIVE, margin=3.5))
    # Organs span [1, 13) x [2, 8) x [2, 6); 3.5 mm are 2, 2 and 1 voxels.
    np.testing.assert_array_equal(box.image, whole.image[0:14, 0:10, 1:7])
    np.testing.assert_array_equal(box.label, whole.label[0:14, 0:10, 1:7])
    np.testing.assert_allclose(box.affine @ [0, 0, 0, 1], whole.affine @ [0, 0, 1, 1])
    tight = prepare(case, Preparation(ORGANS, NATIVE, margin=0))
    assert tight.image.shape == (12, 6, 4)
    np.testing.assert_array_equal(
        np.unravel_index(tight.foreground, (12, 6, 4)),
        [*np.concatenate([np.argwhere(tight.label == k) for k in (1, 2)]).T],
    )


def test_the_ct_window_is_monais() -> None:
    image = body()[0].astype(np.float32)
    scale = ScaleIntensityRange(-125, 275, 0.0, 1.0, clip=True)
    np.testing.assert_allclose(window(image), scale(image), atol=1e-6)
    assert window(np.array([-1000, -125, 75, 275, 3000])).tolist() == [0, 0, 0.5, 1, 1]


def test_the_mr_score_is_monais_and_leaves_zeros() -> None:
    image = np.abs(body()[0]).astype(np.float32) + 7
    image[:4] = 0
    reference = NormalizeIntensity(nonzero=True)(image.copy())
    score = zscore(image)
    np.testing.assert_allclose(score, np.asarray(reference), atol=1e-4)
    assert not score[:4].any()
    assert abs(score[4:].mean()) < 1e-5
    assert abs(score[4:].std() - 1) < 1e-5


def test_images_that_show_nothing_are_refused(tmp_path: Path) -> None:
    for image in (np.zeros(SHAPE), np.full(SHAPE, 700.1), np.pad(np.full((2, 2, 2), 0.1), 3)):
        with pytest.raises(DataError, match="no z-score"):
            zscore(image)
    with pytest.raises(DataError, match=r"values: 800 to 900.*is it CT"):
        normalise(np.linspace(800, 900, 50), "ct")
    with pytest.raises(DataError, match="unknown modality 'mrt'"):
        normalise(body()[0], "mrt")
    case = write_case(tmp_path, modality="mr")
    write(case.image, np.full(SHAPE, 3, np.int16))
    with pytest.raises(DataError, match=r"a_image.nii.gz': all of the image's voxels"):
        prepare(case, Preparation(ORGANS))


def test_an_empty_mask_is_named(tmp_path: Path) -> None:
    case = write_case(tmp_path)
    with pytest.raises(DataError, match=r"a_labels.*no voxel of spleen \(its ids: 0, 5\)"):
        write(case.label, np.where(body()[1] == 5, 5, 0).astype(np.uint8))
        prepare(case, Preparation(("spleen",)))
    speck = np.zeros(SHAPE, np.uint8)
    speck[3, 3, 3] = 5
    write(case.label, speck)
    with pytest.raises(DataError, match=r"no voxel of liver, spleen \(at \(20.*finer spacing"):
        prepare(case, Preparation(ORGANS, (20.0, 20.0, 20.0)))


def test_a_label_map_without_the_organs_is_named(tmp_path: Path) -> None:
    case = replace(write_case(tmp_path), ids={1: "lver"})
    with pytest.raises(DataError, match=r"a_labels.nii.gz' has none of the organs liver, spleen"):
        prepare(case, Preparation(ORGANS))


def test_arrays_become_a_prepared_volume() -> None:
    image, ids = body()
    volume = from_arrays(window(image), ids, "ct", np.ones(6, bool), AFFINE, name="phantom")
    assert (volume.ends[1] - volume.ends[0], volume.ends[5] - volume.ends[4]) == (27, 96)
    np.testing.assert_allclose(volume.spacing, NATIVE)
    assert len(from_arrays(image, 0 * ids, "ct", np.ones(6, bool), AFFINE).foreground) == 0
    with pytest.raises(DataError, match=r"'phantom': the image has shape \(13, 10, 8\)"):
        from_arrays(image[1:], ids, "ct", np.ones(6, bool), AFFINE, name="phantom")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"organs": ()}, "one organ or more"),
        ({"spacing": (1.0, 0.0, 1.0)}, "three edges above 0"),
        ({"margin": -1.0}, "margin is -1"),
    ],
)
def test_preparations_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Preparation(**{"organs": tuple(IDS.values()), **settings})

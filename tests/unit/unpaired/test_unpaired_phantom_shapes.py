"""Anatomies and their warps: organs in place, nothing folded, nothing lost."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from fedalt.errors import ConfigError, DataError
from fedalt.scenarios.unpaired_ct_mr.anatomy import Anatomy, analytic_abdomen, anatomy, real_abdomen
from fedalt.scenarios.unpaired_ct_mr.tissues import NAMES, ORGANS
from fedalt.scenarios.unpaired_ct_mr.warps import (
    STEEPEST,
    Warp,
    displacement,
    gradient,
    pose,
    resample,
    subject,
)

SIZES = [(48, 48), (64, 64), (64, 48), (64, 64, 32)]
STILL = Warp(shift=0, degrees=0, scale=0, bend=0, distractors=0)


def _centre(of: Anatomy, name: str) -> np.ndarray:
    return np.argwhere(of.tissues == NAMES.index(name)).mean(0)


@pytest.mark.parametrize("size", SIZES)
def test_the_analytic_abdomen_has_its_organs_where_they_belong(size: tuple[int, ...]) -> None:
    made = analytic_abdomen(size)
    assert made.size == size and made.tissues.dtype == np.uint8 and made.source == "analytic"
    assert set(np.unique(made.tissues)) == set(range(len(NAMES)))
    # RAS: x grows to the right, y to the front.
    assert _centre(made, "liver")[0] > _centre(made, "spleen")[0] + size[0] / 4
    assert _centre(made, "kidney_right")[0] > _centre(made, "aorta")[0]
    assert _centre(made, "kidney_left")[0] < _centre(made, "aorta")[0]
    assert _centre(made, "stomach")[1] > _centre(made, "kidney_left")[1]
    assert _centre(made, "bone")[1] < _centre(made, "aorta")[1]
    body = made.tissues != 0
    edge = [body[0], body[-1], body[:, 0], body[:, -1]]
    assert not any(side.any() for side in edge)
    wide = np.flatnonzero(body.any(axis=tuple(range(1, body.ndim))))
    if size[0] == size[1]:
        assert len(wide) > 0.9 * size[0]


def test_a_slice_is_the_middle_of_the_volume() -> None:
    flat = analytic_abdomen((40, 40), (8.0, 8.0))
    high = analytic_abdomen((40, 40, 9), (8.0, 8.0, 5.0))
    np.testing.assert_array_equal(high.tissues[:, :, 4], flat.tissues)


def test_ellipses_have_their_area() -> None:
    made = analytic_abdomen((352, 280), (1.0, 1.0))
    area = (made.tissues == NAMES.index("kidney_left")).sum()
    # Half axes 24, 30 and 58 mm about z = -10 mm, cut at z = 0.
    assert area == pytest.approx(np.pi * 24 * 30 * (1 - (10 / 58) ** 2), rel=0.01)


@pytest.mark.parametrize("size", [(48, 48), (40, 40, 16)])
def test_displacements_never_fold(size: tuple[int, ...]) -> None:
    spacing = analytic_abdomen(size).spacing
    for seed in range(5):
        # Far beyond the default, so that the bound is what keeps the field from folding.
        u = displacement(size, spacing, Warp(bend=60, smooth=20), np.random.default_rng(seed))
        bent = gradient(u, spacing)
        assert np.sqrt((bent**2).sum((0, 1))).max() == pytest.approx(STEEPEST)
        jacobian = np.moveaxis(bent, (0, 1), (-2, -1)) + np.eye(len(size))
        assert np.linalg.det(jacobian).min() > 0


def test_displacements_are_as_large_as_asked_where_they_may() -> None:
    size, spacing = (96, 96), (4.0, 4.0)
    u = displacement(size, spacing, Warp(bend=5, smooth=40), np.random.default_rng(0))
    assert np.sqrt((u**2).mean()) == pytest.approx(5.0)
    np.testing.assert_allclose(u.mean((1, 2)), 0, atol=1e-9)


@pytest.mark.parametrize("size", [(64, 64), (48, 48, 24)])
def test_no_warp_leaves_the_anatomy_as_it_is(size: tuple[int, ...]) -> None:
    of = analytic_abdomen(size)
    found = subject(of, STILL, np.random.default_rng(0))
    np.testing.assert_array_equal(found.tissues, of.tissues)
    np.testing.assert_array_equal(found.seen, of.tissues)
    assert found.names == NAMES


def test_resampling_is_that_of_scipy() -> None:
    of = analytic_abdomen((48, 40))
    rng = np.random.default_rng(3)
    warp = Warp()
    matrix, shift = pose(warp, 2, rng)
    u = displacement(of.size, of.spacing, warp, rng)
    middle = (np.array(of.size) - 1)[:, None, None] / 2
    mm = np.array(of.spacing)[:, None, None]
    points = (np.indices(of.size) - middle) * mm + u - shift[:, None, None]
    points = np.einsum("ij,jxy->ixy", matrix, points) / mm + middle
    wanted = ndimage.map_coordinates(of.tissues, points, order=0, mode="grid-constant")
    np.testing.assert_array_equal(resample(of, matrix, shift, u), wanted)


def test_poses_move_turn_and_scale() -> None:
    of = analytic_abdomen((96, 96))
    none = np.zeros((2, *of.size))
    moved = resample(of, np.eye(2), np.array([of.spacing[0] * 5, 0.0]), none)
    np.testing.assert_array_equal(moved[5:], of.tissues[:-5])
    small = resample(of, np.eye(2) / 0.8, np.zeros(2), none)
    assert (small > 0).sum() / (of.tissues > 0).sum() == pytest.approx(0.64, abs=0.02)
    half_turn = resample(of, -np.eye(2), np.zeros(2), none)
    np.testing.assert_array_equal(half_turn, of.tissues[::-1, ::-1])


def test_flips_come_only_where_allowed() -> None:
    signs = {
        flip: {
            float(np.sign(np.linalg.det(pose(Warp(flip=flip), 2, np.random.default_rng(i))[0])))
            for i in range(20)
        }
        for flip in (False, True)
    }
    assert signs == {False: {1.0}, True: {-1.0, 1.0}}


@pytest.mark.parametrize("size", [(64, 64), (48, 48, 24)])
def test_warps_keep_every_tissue_and_vary_the_place(size: tuple[int, ...]) -> None:
    of = analytic_abdomen(size)
    made = [subject(of, Warp(), np.random.default_rng(i)).tissues for i in range(12)]
    assert all(set(np.unique(each)) == set(range(len(NAMES))) for each in made)
    spleen = NAMES.index("spleen")
    pairs = [(a == spleen, b == spleen) for a, b in itertools.pairwise(made)]
    overlap = [2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs]
    # A guess by place alone, from another subject, is a poor one.
    assert np.mean(overlap) < 0.55


def test_look_alikes_lie_beside_organs_and_look_like_them() -> None:
    of = analytic_abdomen((64, 64))
    organs = [NAMES.index(name) for name in ORGANS]
    seen_any = 0
    for seed in range(10):
        found = subject(of, Warp(distractors=5), np.random.default_rng(seed))
        alike = found.seen >= len(NAMES)
        seen_any += int(alike.sum())
        np.testing.assert_array_equal(found.seen[~alike], found.tissues[~alike])
        assert not np.isin(found.tissues[alike], [*organs, 0]).any()
        assert len(found.names) == len(NAMES) + 5
        assert not {"air", "fat", "muscle", "bone", "bowel"} & set(found.names[len(NAMES) :])
    assert seen_any > 500


def test_bad_sizes_and_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"\(8, 64\) is too small"):
        analytic_abdomen((8, 64))
    with pytest.raises(ConfigError, match="8 slices"):
        analytic_abdomen((64, 64, 4))
    with pytest.raises(ConfigError, match=r"\(x, y\) or \(x, y, z\)"):
        analytic_abdomen((64,))
    with pytest.raises(ConfigError, match="2 spacings"):
        analytic_abdomen((64, 64), (3.0, 3.0, 3.0))
    with pytest.raises(ConfigError, match="does not have 3 dimensions"):
        anatomy(None, (64, 64), 3)
    with pytest.raises(ConfigError, match="smooth above 0"):
        Warp(smooth=0.0)
    with pytest.raises(ConfigError, match=r"scale 1 must be in \[0, 1\)"):
        Warp(scale=1.0)
    with pytest.raises(ConfigError, match="finite"):
        Warp(bend=float("nan"))
    with pytest.raises(ConfigError, match="tissue 3 has no name"):
        Anatomy(np.full((20, 20), 3, np.uint8), ("air", "fat"), (3.0, 3.0), "mine")
    with pytest.raises(ConfigError, match="must be 'air'"):
        Anatomy(np.zeros((20, 20), np.uint8), ("fat", "air"), (3.0, 3.0), "mine")
    with pytest.raises(ConfigError, match="must both be"):
        Anatomy(np.zeros((20, 20), np.uint8), ("air",), (3.0, 3.0, 3.0), "mine")
    with pytest.raises(ConfigError, match="blob"):
        Warp(blob=(9.0, 3.0))


def test_without_files_the_analytic_abdomen_stands_in_only_where_asked(tmp_path: Path) -> None:
    assert anatomy(tmp_path, (48, 48), 2).source == "analytic"
    with pytest.raises(DataError, match=r"ct_a_image\.nii\.gz' is missing"):
        real_abdomen(tmp_path, (48, 48))
    with pytest.raises(ConfigError, match="level"):
        real_abdomen(tmp_path, (48, 48), level=2.0)


def _small_volume(folder: Path, ids: dict[str, int]) -> None:
    """Write a volume of 30 × 24 × 10 voxels whose structures are boxes, as LPS files."""
    nibabel = pytest.importorskip("nibabel")
    hu, label = np.full((30, 24, 10), -1000.0, np.float32), np.zeros((30, 24, 10), np.uint8)
    hu[3:27, 3:21] = 40
    hu[3:27, 3:5] = -90
    for i, number in enumerate(ids.values()):
        label[5 + 4 * i : 8 + 4 * i, 8:14, 2:8] = number
    folder.mkdir()
    affine = np.diag([4.0, 4.0, 5.0, 1.0])
    for name, values in (("image", hu), ("labels", label)):
        turned = nibabel.Nifti1Image(values, affine).as_reoriented([[0, -1], [1, -1], [2, 1]])
        nibabel.save(turned, folder / f"ct_a_{name}.nii.gz")
    names = {str(number): name for name, number in ids.items()}
    (folder / "labels.json").write_text(json.dumps({"ct": names}))


def test_a_labelled_volume_is_reduced_to_tissues_in_ras(tmp_path: Path) -> None:
    ids = {"spleen": 4, "kidney_left": 9, "vertebrae_L1": 2, "kidney_right": 3, "liver": 200}
    _small_volume(tmp_path / "abdomen", ids)
    found = anatomy(tmp_path, (30, 30), 2)
    assert found.source == "TotalSegmentator CT"
    places = [_centre(found, name)[0] for name in ("spleen", "bone", "liver")]
    assert places == sorted(places)
    present = {NAMES[i] for i in np.unique(found.tissues)}
    wanted = {"air", "fat", "muscle", "bone", "liver", "spleen", "kidney_right", "kidney_left"}
    assert present == wanted
    # Fat lies at low y: behind, as written before the files were turned.
    assert _centre(found, "fat")[1] < _centre(found, "liver")[1]
    high = real_abdomen(tmp_path, (30, 30, 12))
    assert high.spacing[2] * 12 == pytest.approx(6 * 5.0)
    assert (high.tissues == NAMES.index("liver")).any((0, 1)).all()


def test_a_volume_without_the_organs_is_refused(tmp_path: Path) -> None:
    _small_volume(tmp_path / "abdomen", {"spleen": 4, "liver": 5})
    with pytest.raises(DataError, match="no slice holds all of liver, spleen"):
        real_abdomen(tmp_path, (30, 30))


@pytest.mark.skipif("FEDALT_DATA" not in os.environ, reason="FEDALT_DATA is unset: no real CT")
@pytest.mark.parametrize("size", [(64, 64), (64, 64, 24)])
def test_the_real_abdomen_is_an_abdomen(size: tuple[int, ...]) -> None:
    found = anatomy(Path(os.environ["FEDALT_DATA"]), size, len(size))
    assert found.source == "TotalSegmentator CT" and found.size == size
    assert {NAMES.index(organ) for organ in ORGANS} <= set(np.unique(found.tissues))
    assert _centre(found, "liver")[0] > _centre(found, "spleen")[0] + 10
    assert _centre(found, "kidney_right")[0] > _centre(found, "kidney_left")[0] + 10
    assert _centre(found, "bone")[1] < _centre(found, "stomach")[1]
    assert 0.3 < (found.tissues > 0).mean() < 0.8

"""The data folder's real CT and MR volume, from files to patches."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel
import numpy as np
import pytest

from fedalt.medical.cached import cached
from fedalt.medical.label_map import check_organs
from fedalt.medical.layouts import find_cases
from fedalt.medical.patches import draw_patches
from fedalt.medical.prepare import Preparation, Prepared
from fedalt.medical.site_table import check_sites

ROOT = Path(os.environ.get("FEDALT_DATA", "")) / "abdomen"
ORGANS = (
    "spleen",
    "kidney_right",
    "kidney_left",
    "gallbladder",
    "liver",
    "stomach",
    "pancreas",
    "aorta",
    "inferior_vena_cava",
)

pytestmark = pytest.mark.skipif(
    not os.environ.get("FEDALT_DATA"), reason="FEDALT_DATA names no folder"
)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Prepared, ...]:
    folder = tmp_path_factory.mktemp("cache")
    cases = find_cases("abdomen", ROOT)
    return tuple(cached(case, Preparation(ORGANS, (3.0, 3.0, 3.0)), folder) for case in cases)


def test_the_pair_is_two_hospitals_with_names_of_their_own() -> None:
    ct, mr = find_cases("abdomen", ROOT)
    check_sites((ct, mr))
    assert [(case.site, case.modality) for case in (ct, mr)] == [
        ("ct_hospital", "ct"),
        ("mr_hospital", "mr"),
    ]
    check_organs(ORGANS, {case.site: case.ids for case in (ct, mr)})
    number = {case.site: {name: i for i, name in case.ids.items()} for case in (ct, mr)}
    assert number["ct_hospital"]["aorta"] == 52
    assert number["mr_hospital"]["aorta"] == 23


def test_both_are_ras_at_the_spacing_asked_for(volumes: tuple[Prepared, ...]) -> None:
    ct, mr = volumes
    assert ct.image.shape == ct.label.shape == (122, 101, 112)
    assert mr.image.shape == mr.label.shape == (117, 91, 20)
    for volume in volumes:
        assert nibabel.aff2axcodes(volume.affine) == ("R", "A", "S")
        np.testing.assert_allclose(volume.spacing, 3.0, rtol=1e-5)
        assert volume.known.all()
    assert (ct.image.min(), ct.image.max()) == (0.0, 1.0)
    inside = mr.image[mr.image != 0]
    assert abs(inside.mean()) < 1e-3
    assert abs(inside.std() - 1) < 1e-3


def test_organs_lie_where_a_body_has_them(volumes: tuple[Prepared, ...]) -> None:
    for volume in volumes:
        places = {
            organ: np.argwhere(volume.label == k).mean(axis=0)
            for k, organ in enumerate(ORGANS, 1)
            if (volume.label == k).any()
        }
        assert set(places) >= {"spleen", "liver", "kidney_left", "kidney_right", "aorta"}
        assert places["liver"][0] > places["aorta"][0] > places["spleen"][0]
        assert places["kidney_right"][0] > places["aorta"][0] > places["kidney_left"][0]
        assert places["inferior_vena_cava"][0] > places["aorta"][0]
        assert places["stomach"][1] > places["spleen"][1]
        assert places["liver"][2] > places["kidney_right"][2]


def test_labels_agree_with_counts_in_the_files(volumes: tuple[Prepared, ...]) -> None:
    for case, volume in zip(find_cases("abdomen", ROOT), volumes, strict=True):
        ids = np.asanyarray(nibabel.load(case.label).dataobj)
        number = {name: i for i, name in case.ids.items()}
        for k, organ in enumerate(ORGANS, 1):
            assert (volume.label == k).sum() == (ids == number[organ]).sum(), organ


def test_soft_tissue_has_ct_values(volumes: tuple[Prepared, ...]) -> None:
    ct = volumes[0]
    liver = ct.image[ct.label == 1 + ORGANS.index("liver")] * 400 - 125
    assert 20 < np.median(liver) < 180


def test_patches_come_from_both(volumes: tuple[Prepared, ...]) -> None:
    rng = np.random.default_rng(0)
    for size in ((64, 64), (48, 48, 32)):
        images, labels, which = draw_patches(volumes, size, 6, rng, balanced=True)
        assert np.isfinite(images).all()
        assert which.tolist() == [0] * 6 + [1] * 6
        assert all((labels[which == place] > 0).any() for place in (0, 1))

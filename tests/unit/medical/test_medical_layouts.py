"""Folder layouts: each case is found with its label, modality and names, and dealt to sites."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fedalt.errors import ConfigError, DataError
from fedalt.medical.label_map import AMOS, MMWHS
from fedalt.medical.layouts import Deal, find_cases
from fedalt.medical.site_table import Case


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.fixture
def amos(tmp_path: Path) -> Path:
    for part, numbers in (("Tr", (1, 4, 5, 9, 499, 507, 508)), ("Va", (8, 13, 540))):
        for number in numbers:
            name = f"amos_{number:04}.nii.gz"
            touch(tmp_path, f"images{part}/{name}", f"labels{part}/{name}")
    touch(tmp_path, "imagesTs/amos_0002.nii.gz", "dataset.json", "imagesTr/._amos_0001.nii.gz")
    return tmp_path


@pytest.fixture
def mmwhs(tmp_path: Path) -> Path:
    for modality in ("ct", "mr"):
        for number in range(1001, 1011):
            stem = f"{modality}_train/{modality}_train_{number}"
            touch(tmp_path, f"{stem}_image.nii.gz", f"{stem}_label.nii.gz")
        touch(tmp_path, f"{modality}_test/{modality}_test_2001_image.nii.gz")
    return tmp_path


def counts(cases: tuple[Case, ...]) -> Counter[tuple[str, str]]:
    return Counter((case.site, case.split) for case in cases)


def test_amos_tells_modalities_by_number_and_splits_by_folder(amos: Path) -> None:
    cases = find_cases("amos", amos, Deal({"ct": 2, "mr": 1}), np.random.default_rng(3))
    assert counts(cases) == {
        ("ct_1", "train"): 3,
        ("ct_2", "train"): 2,
        ("ct_1", "test"): 1,
        ("ct_2", "test"): 1,
        ("mr_1", "train"): 2,
        ("mr_1", "test"): 1,
    }
    for case in cases:
        number = int(case.name.removeprefix("amos_"))
        assert case.modality == ("ct" if number < 500 else "mr")
        assert case.label.parent.name == case.image.parent.name.replace("images", "labels")
        assert case.label.name == case.image.name
        assert case.ids == AMOS


def test_the_deal_follows_the_seed_and_its_limits(amos: Path) -> None:
    deal = Deal({"ct": 1}, at_most={"ct": 2})
    one, two, other = (find_cases("amos", amos, deal, np.random.default_rng(s)) for s in (1, 1, 2))
    assert one == two != other
    assert counts(one) == {("ct_1", "train"): 2, ("ct_1", "test"): 2}


def test_mmwhs_holds_out_a_share(mmwhs: Path) -> None:
    cases = find_cases("mmwhs", mmwhs, Deal({"ct": 2, "mr": 1}, test=0.2))
    assert counts(cases) == {
        ("ct_1", "train"): 4,
        ("ct_2", "train"): 4,
        ("ct_1", "test"): 1,
        ("ct_2", "test"): 1,
        ("mr_1", "train"): 8,
        ("mr_1", "test"): 2,
    }
    assert len({case.image for case in cases}) == 20
    assert {case.label.name for case in cases} == {f"{case.name}_label.nii.gz" for case in cases}
    assert cases[0].ids == MMWHS


def test_plain_has_its_own_sites_and_the_nearest_names(tmp_path: Path) -> None:
    for stem in ("north/ct/p1", "north/ct/p2", "north/mr/p1", "south/mr/q_image_1"):
        touch(tmp_path, f"{stem}_image.nii.gz", f"{stem}_labels.nii.gz")
    (tmp_path / "labels.json").write_text(json.dumps({"ct": {"1": "liver"}, "mr": {"2": "liver"}}))
    (tmp_path / "south" / "labels.json").write_text(json.dumps({"9": "liver"}))
    cases = {case.name: case for case in find_cases("plain", tmp_path)}
    assert sorted(cases) == ["north_ct_p1", "north_ct_p2", "north_mr_p1", "south_mr_q_image_1"]
    assert cases["north_ct_p1"].ids == {1: "liver"}
    assert cases["north_mr_p1"].ids == {2: "liver"}
    assert cases["south_mr_q_image_1"].ids == {9: "liver"}
    assert cases["south_mr_q_image_1"].label.name == "q_image_1_labels.nii.gz"
    split = counts(find_cases("plain", tmp_path, Deal({}, test=0.5)))
    assert split == {("north", "train"): 2, ("north", "test"): 1, ("south", "train"): 1}


def test_folders_that_are_not_of_the_layout_are_named(tmp_path: Path, mmwhs: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown layout 'amoz' \(did you mean 'amos'"):
        find_cases("amoz", tmp_path)
    with pytest.raises(DataError, match="'/nowhere' of the layout 'amos' does not exist"):
        find_cases("amos", "/nowhere")
    with pytest.raises(DataError, match="has no case of the layout 'amos': expected imagesTr"):
        find_cases("amos", mmwhs)
    next((mmwhs / "mr_train").glob("*1003_label*")).unlink()
    with pytest.raises(DataError, match=r"1003_image.nii.gz' has no label: .*1003_label"):
        find_cases("mmwhs", mmwhs)
    touch(tmp_path, "plain/north/pet/a_image.nii.gz")
    with pytest.raises(DataError, match=r"north/pet' names no modality"):
        find_cases("plain", tmp_path / "plain")
    touch(tmp_path, "bare/north/ct/a_image.nii", "bare/north/ct/a_labels.nii")
    with pytest.raises(DataError, match=r"a_image.nii' has no labels.json"):
        find_cases("plain", tmp_path / "bare")


def test_deals_that_cannot_be_are_refused(amos: Path) -> None:
    with pytest.raises(DataError, match=r"2 training cases of the modality 'mr' to 3 sites"):
        find_cases("amos", amos, Deal({"mr": 3}))
    with pytest.raises(ConfigError, match="0 sites of the modality 'mr'"):
        find_cases("amos", amos, Deal({"mr": 0}))
    with pytest.raises(ConfigError, match="unknown modality 'pet'"):
        find_cases("amos", amos, Deal({"pet": 1}))
    with pytest.raises(ConfigError, match=r"share of test cases is 1.0"):
        find_cases("amos", amos, Deal({"mr": 1}, test=1.0))

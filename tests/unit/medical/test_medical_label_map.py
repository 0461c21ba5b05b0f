"""Label maps: classes follow names and not ids; names that nobody has are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedalt.errors import ConfigError, DataError
from fedalt.medical.label_map import (
    AMOS,
    MMWHS,
    check_organs,
    class_of_id,
    known_classes,
    read_label_map,
    to_classes,
)

CT = {1: "spleen", 5: "liver", 10: "lung_upper_left", 11: "lung_lower_left"}
MR = {2: "liver", 7: "lung_left", 8: "colon"}
ORGANS = ("liver", "lung", "spleen")
MERGE = {"lung": ("lung_upper_left", "lung_lower_left", "lung_left")}


def test_ids_of_both_modalities_reach_the_same_classes() -> None:
    assert class_of_id(CT, ORGANS, MERGE) == {5: 1, 10: 2, 11: 2, 1: 3}
    assert class_of_id(MR, ORGANS, MERGE) == {2: 1, 7: 2}
    assert class_of_id(MR, ("spleen", "colon")) == {8: 2}


def test_known_says_what_a_case_labels() -> None:
    known = [known_classes(class_of_id(ids, ORGANS, MERGE), ORGANS).tolist() for ids in (CT, MR)]
    assert known == [[True] * 4, [True, True, True, False]]


def test_other_structures_and_unlisted_ids_become_background() -> None:
    classes = class_of_id(CT, ORGANS, MERGE)
    label = np.array([[0, 1, 5, 10], [11, 3, 99, 5]], np.int64)
    expected = [[0, 3, 1, 2], [2, 0, 0, 1]]
    for dtype in (np.uint8, np.int16, np.int64):
        result = to_classes(label.astype(dtype), classes)
        assert result.dtype == np.uint8
        assert result.tolist() == expected


def test_an_unknown_organ_is_named_with_the_nearest_and_the_places() -> None:
    maps = {"ct_hospital": CT, "mr_hospital": MR}
    check_organs(ORGANS, maps, MERGE)
    with pytest.raises(ConfigError, match=r"'livr' \(did you mean 'liver'\?\).*ct_hospital, mr_h"):
        check_organs(("livr",), maps)
    with pytest.raises(ConfigError, match=r"unknown organ 'lung_rear'"):
        check_organs(("lung",), maps, {"lung": ("lung_left", "lung_rear")})


def test_organs_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="'liver' is named twice"):
        check_organs(("liver", "spleen", "liver"), {"a": CT})
    with pytest.raises(ConfigError, match=r"merge makes 'lungs'.*'lung'"):
        check_organs(ORGANS, {"a": CT, "b": MR}, {"lungs": ("lung_left",)})
    with pytest.raises(ConfigError, match=r"south labels none of spleen; .*has colon, liver"):
        check_organs(("spleen",), {"north": CT, "south": MR})


def test_published_ids() -> None:
    assert len(AMOS) == 15
    assert (AMOS[2], AMOS[6], AMOS[9]) == ("kidney_right", "liver", "inferior_vena_cava")
    assert sorted(MMWHS) == [205, 420, 500, 550, 600, 820, 850]


def test_a_file_may_hold_one_map_or_one_by_modality(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text('{"1": "spleen"}')
    assert read_label_map(path, "mr") == {1: "spleen"}
    path.write_text('{"ct": {"1": "spleen"}, "mr": {"4": "spleen"}}')
    assert read_label_map(path, "mr") == {4: "spleen"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "must map ids"),
        ('{"ct": {"1": "a"}}', "no names for the modality 'mr', only for ct"),
        ('{"spleen": 1}', "the id 'spleen'"),
        ('{"0": "background"}', "the id '0'"),
        ('{"1": 4}', "id 1 the name 4"),
    ],
)
def test_a_faulty_map_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(DataError, match=f"labels.json'.*{message}"):
        read_label_map(path, "mr")

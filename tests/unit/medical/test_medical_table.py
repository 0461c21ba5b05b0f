"""Site tables: CSV and YAML give the same cases, and each fault is named by row and column."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedalt.errors import DataError
from fedalt.medical.label_map import AMOS, MMWHS
from fedalt.medical.site_table import Case, check_sites, read_site_table

HEADER = "image,label,modality,site,split,labels"
ROWS = (
    "vol/a.nii.gz,vol/a_seg.nii.gz,ct,north,train,names.json",
    "vol/b.nii.gz,vol/b_seg.nii.gz,MR,south,train,names.json",
    "vol/c.nii,vol/c_seg.nii,mr,south,test,amos",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "vol").mkdir()
    for name in ("a.nii.gz", "a_seg.nii.gz", "b.nii.gz", "b_seg.nii.gz", "c.nii", "c_seg.nii"):
        (tmp_path / "vol" / name).touch()
    names = {"ct": {"1": "spleen", "5": "liver"}, "mr": {"1": "liver"}}
    (tmp_path / "names.json").write_text(json.dumps(names))
    return tmp_path


def table(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "sites.csv"
    path.write_text("\n".join((header, *rows)) + "\n")
    return path


def test_csv_gives_cases_with_paths_beside_the_table_and_names_by_modality(folder: Path) -> None:
    one, two, three = read_site_table(table(folder, *ROWS))
    assert one == Case(
        "a",
        folder / "vol/a.nii.gz",
        folder / "vol/a_seg.nii.gz",
        "ct",
        "north",
        "train",
        {1: "spleen", 5: "liver"},
    )
    assert (two.modality, two.ids) == ("mr", {1: "liver"})
    assert (three.name, three.split, three.ids) == ("c", "test", AMOS)
    assert len({one, two, three}) == 3


def test_blanks_around_a_value_make_no_other_site(folder: Path) -> None:
    spaced = [row.replace(",", " , ") for row in ROWS]
    assert read_site_table(table(folder, *spaced)) == read_site_table(table(folder, *ROWS))


def test_yaml_gives_the_same_cases_and_maps_of_its_own(folder: Path) -> None:
    yaml = folder / "sites.yaml"
    yaml.write_text(
        """
label_maps:
  ours: {ct: {1: spleen, 5: liver}, mr: {1: liver}}
cases:
  - {image: vol/a.nii.gz, label: vol/a_seg.nii.gz, modality: ct, site: north, split: train,
     labels: ours}
  - {image: vol/b.nii.gz, label: vol/b_seg.nii.gz, modality: mr, site: south, split: train,
     labels: {1: liver}}
  - {image: vol/c.nii, label: vol/c_seg.nii, modality: mr, site: south, split: test, labels: amos}
"""
    )
    assert read_site_table(yaml) == read_site_table(table(folder, *ROWS))


def test_paths_start_at_a_root_that_is_given(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = table(tmp_path_factory.mktemp("elsewhere"), *ROWS)
    with pytest.raises(DataError, match="row 1: the column 'image' names"):
        read_site_table(elsewhere)
    assert read_site_table(elsewhere, root=folder) == read_site_table(table(folder, *ROWS))


def test_names_tell_cases_of_one_file_name_apart(folder: Path) -> None:
    (folder / "more").mkdir()
    (folder / "more" / "a.nii.gz").touch()
    again = "more/a.nii.gz,vol/a_seg.nii.gz,ct,north,train,mmwhs"
    with pytest.raises(DataError, match=r"row 1: site 'north' has two cases 'a'"):
        read_site_table(table(folder, ROWS[0], again))
    path = table(folder, ROWS[0] + ",", again + ",second", header=HEADER + ",name")
    assert [case.name for case in read_site_table(path)] == ["a", "second"]
    assert read_site_table(path)[1].ids == MMWHS


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROWS[0].replace(",ct,", ",,"), "row 2: the column 'modality' is missing or empty"),
        (ROWS[0].replace(",ct,", ",pet,"), "row 2: .*'modality' has 'pet'.*known: ct, mr"),
        (ROWS[0].replace("train", "learn"), r"row 2: .*'split' has 'learn'.*known: train, test"),
        (ROWS[0].replace("a_seg", "x_seg"), "row 2: the column 'label' names .*x_seg"),
        (ROWS[0].replace("names.json", "amoz"), r"row 2: .*'labels' has 'amoz'.*mean 'amos'"),
        (ROWS[0] + ",more", "row 2: unknown column"),
        (ROWS[1], "row 1: the column 'image' names .*another row"),
    ],
)
def test_a_faulty_row_is_named(folder: Path, row: str, message: str) -> None:
    with pytest.raises(DataError, match=f"sites.csv', {message}"):
        read_site_table(table(folder, ROWS[1], row))


def test_a_missing_column_is_named(folder: Path) -> None:
    rows = [row.replace(",ct,", ",").replace(",MR,", ",") for row in ROWS[:2]]
    with pytest.raises(DataError, match=r"sites.csv' has no column 'modality'"):
        read_site_table(table(folder, *rows, header=HEADER.replace("modality,", "")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cases: [", "is no YAML"),
        ("cases: 3", "must have a list 'cases'"),
        ("case: []", r"unknown key 'case' \(did you mean 'cases'"),
        ("cases: []", "has no cases"),
        ("cases: [{image: a.nii}]", "row 1: the column 'label' is missing"),
        ("{cases: [], label_maps: [1]}", "'label_maps' must map"),
    ],
)
def test_a_faulty_yaml_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(DataError, match=rf"t\.yaml'.*{message}"):
        read_site_table(tmp_path / "t.yaml")


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"image,\xff\xfe")
    with pytest.raises(DataError, match=r"t\.csv' is no UTF-8 text"):
        read_site_table(tmp_path / "t.csv")


def test_a_site_without_training_case_is_named_unless_it_is_to_be_unseen(folder: Path) -> None:
    rows = (ROWS[0], ROWS[1].replace("train", "test"), ROWS[2])
    cases = read_site_table(table(folder, *rows))
    with pytest.raises(DataError, match="no training case at 'south'"):
        check_sites(cases)
    check_sites(cases, unseen=["south"])


def test_a_site_may_have_both_modalities(folder: Path) -> None:
    cases = read_site_table(table(folder, ROWS[0], ROWS[1].replace("south", "north")))
    check_sites(cases)
    assert {(case.site, case.modality) for case in cases} == {("north", "ct"), ("north", "mr")}

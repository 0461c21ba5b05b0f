"""Finding the data folder: what was named wins, and is never silently replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedalt.data.folder import cache_folder, data_folder, find_file, read_bytes
from fedalt.errors import DataError


def test_argument_wins_over_environment(tmp_path: Path) -> None:
    named, other = tmp_path / "a", tmp_path / "b"
    named.mkdir()
    other.mkdir()
    assert data_folder(named, {"FEDALT_DATA": str(other)}).path == named
    assert data_folder(named, {}).named_by == "task.root"
    found = data_folder(None, {"FEDALT_DATA": str(other)})
    assert (found.path, found.named_by, found.named) == (other, "FEDALT_DATA", True)


@pytest.mark.parametrize("root", [None, ""])
def test_nothing_named_means_the_cache(tmp_path: Path, root: str | None) -> None:
    env = {"XDG_CACHE_HOME": str(tmp_path), "FEDALT_DATA": ""}
    folder = data_folder(root, env)
    assert folder.path == tmp_path / "fedalt"
    assert not folder.named
    assert folder.places == (tmp_path / "fedalt",)


def test_cache_is_in_home_unless_xdg_is_absolute() -> None:
    home = Path.home() / ".cache" / "fedalt"
    assert cache_folder({}) == home
    assert cache_folder({"XDG_CACHE_HOME": "relative"}) == home


@pytest.mark.parametrize("setting", ["task.root", "FEDALT_DATA"])
def test_missing_folder_names_itself_and_its_setting(tmp_path: Path, setting: str) -> None:
    gone = str(tmp_path / "gone")
    root, env = (gone, {}) if setting == "task.root" else (None, {"FEDALT_DATA": gone})
    with pytest.raises(DataError, match=rf"'{gone}' named by {setting} does not exist; create"):
        data_folder(root, env)


def test_file_in_place_of_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(DataError, match="is a file, not a folder"):
        data_folder(file, {})


def test_find_file_looks_in_the_folder_then_in_the_cache(tmp_path: Path) -> None:
    named, cache = tmp_path / "named", tmp_path / "xdg" / "fedalt"
    named.mkdir()
    cache.mkdir(parents=True)
    (cache / "two.txt").touch()
    folder = data_folder(named, {"XDG_CACHE_HOME": str(tmp_path / "xdg")})
    names = ["one.txt", "two.txt"]
    assert find_file(folder, names, what="numbers", obtain="") == cache / "two.txt"
    (named / "two.txt").touch()
    assert find_file(folder, names, what="numbers", obtain="") == named / "two.txt"


def test_not_found_lists_places_names_and_source(tmp_path: Path) -> None:
    folder = data_folder(tmp_path, {"XDG_CACHE_HOME": str(tmp_path / "xdg")})
    with pytest.raises(DataError) as caught:
        find_file(folder, ["a.zip", "a.txt"], what="Set A", obtain="Get it from its author.")
    text = str(caught.value)
    for part in (str(tmp_path), "xdg/fedalt", "a.zip or a.txt", "Get it from its author.", "Set A"):
        assert part in text


def test_unreadable_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_bytes(tmp_path)

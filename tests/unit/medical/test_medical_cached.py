"""The cache of prepared volumes: read once, mapped after, made anew when broken or stale."""

from __future__ import annotations

import json
import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nifti_files import body, write, write_case

from fedalt.errors import DataError
from fedalt.medical import cached as room
from fedalt.medical.cached import cached, entry_key
from fedalt.medical.prepare import Preparation, Prepared, prepare
from fedalt.medical.site_table import Case

HOW = Preparation(("liver", "spleen"), (2.0, 2.0, 2.0))


def same(one: Prepared, two: Prepared) -> None:
    for name in ("image", "label", "known", "spacing", "affine", "foreground", "ends"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)
        assert getattr(one, name).dtype == getattr(two, name).dtype
    assert (one.name, one.site, one.modality) == (two.name, two.site, two.modality)


def entry(folder: Path) -> Path:
    (found,) = (path for path in folder.iterdir() if path.is_dir())
    return found


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the case was prepared again")

    monkeypatch.setattr(room, "prepare", refuse)


def test_the_second_time_reads_no_nifti(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = write_case(tmp_path)
    first = cached(case, HOW, tmp_path / "cache")
    same(first, prepare(case, HOW))
    forbid(monkeypatch)
    stat = case.image.stat()
    for path in (case.image, case.label):
        size, times = path.stat().st_size, (stat.st_atime_ns, path.stat().st_mtime_ns)
        path.write_bytes(bytes(size))
        os.utime(path, ns=times)
    second = cached(case, HOW, tmp_path / "cache")
    same(first, second)
    for name in ("image", "label", "foreground"):
        array = getattr(second, name)
        assert isinstance(array, np.memmap)
        assert not array.flags.writeable


def test_the_cache_lies_with_fedalts_other_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    cached(write_case(tmp_path), HOW)
    assert entry(tmp_path / "xdg" / "fedalt" / "volumes").name.startswith("a-")


def test_what_changes_the_result_changes_the_key(tmp_path: Path) -> None:
    case = write_case(tmp_path)
    keys = {entry_key(case, HOW)}
    for how in (
        replace(HOW, spacing=(2.0, 2.0, 3.0)),
        replace(HOW, organs=("spleen", "liver")),
        replace(HOW, merge={"liver": ("colon",)}),
        replace(HOW, margin=1.0),
    ):
        keys.add(entry_key(case, how))
    keys.add(entry_key(replace(case, modality="mr"), HOW))
    keys.add(entry_key(replace(case, ids={5: "liver"}), HOW))
    os.utime(case.label, ns=(1, 1))
    keys.add(entry_key(case, HOW))
    assert len(keys) == 8
    assert entry_key(replace(case, site="south"), replace(HOW)) == entry_key(case, HOW)


def test_a_changed_file_is_prepared_anew(tmp_path: Path) -> None:
    case = write_case(tmp_path)
    before = cached(case, HOW, tmp_path / "cache")
    write(case.image, body(seed=1)[0])
    os.utime(case.image, ns=(1, 1))
    after = cached(case, HOW, tmp_path / "cache")
    assert not np.array_equal(before.image, after.image)
    same(after, prepare(case, HOW))


@pytest.mark.parametrize("name", ["image.npy", "label.npy", "foreground.npy", "entry.json"])
@pytest.mark.parametrize("fault", ["gone", "empty", "cut", "other"])
def test_a_broken_entry_is_made_anew(tmp_path: Path, name: str, fault: str) -> None:
    case, cache = write_case(tmp_path), tmp_path / "cache"
    cached(case, HOW, cache)
    path = entry(cache) / name
    content = path.read_bytes()
    if fault == "gone":
        path.unlink()
    elif fault == "other":
        path.write_bytes(json.dumps({"key": "x"}).encode())
    else:
        path.write_bytes(content[: len(content) - 9 if fault == "cut" else 0])
    same(cached(case, HOW, cache), prepare(case, HOW))
    assert path.read_bytes() == content


def test_an_entry_of_another_key_is_made_anew(tmp_path: Path) -> None:
    case, cache = write_case(tmp_path), tmp_path / "cache"
    cached(case, HOW, cache)
    path = entry(cache) / "entry.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "key": facts["key"][:-1] + "-", "known": [True] * 3}))
    np.save(entry(cache) / "label.npy", np.zeros_like(np.load(entry(cache) / "label.npy")))
    same(cached(case, HOW, cache), prepare(case, HOW))


def test_an_array_of_another_shape_is_made_anew(tmp_path: Path) -> None:
    case, cache = write_case(tmp_path), tmp_path / "cache"
    cached(case, HOW, cache)
    np.save(entry(cache) / "label.npy", np.zeros((2, 2, 2), np.uint8))
    same(cached(case, HOW, cache), prepare(case, HOW))


def test_a_crash_leaves_nothing_that_is_taken_for_an_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, cache = write_case(tmp_path), tmp_path / "cache"
    with monkeypatch.context() as patch:
        patch.setattr(room.shutil, "rmtree", lambda *_, **__: None)
        patch.setattr(room, "_facts", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cached(case, HOW, cache)
    assert [path.suffix for path in cache.iterdir() if path.is_dir()] == [".tmp"]
    same(cached(case, HOW, cache), prepare(case, HOW))
    assert entry(cache).name.startswith("a-")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    case = write_case(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cache of volumes '.*/file' cannot be written to"):
        cached(case, HOW, tmp_path / "file")


def test_a_faulty_case_leaves_no_entry(tmp_path: Path) -> None:
    case, cache = write_case(tmp_path), tmp_path / "cache"
    case.image.write_bytes(b"no volume")
    with pytest.raises(DataError, match=r"a_image.nii.gz' is no NIfTI"):
        cached(case, HOW, cache)
    assert not [path for path in cache.iterdir() if path.is_dir()]
    case.image.unlink()
    with pytest.raises(DataError, match=r"a_image.nii.gz' cannot be read"):
        cached(case, HOW, cache)


def test_a_cases_name_never_leaves_the_cache(tmp_path: Path) -> None:
    case = replace(write_case(tmp_path), name="../p/1 é")
    assert cached(case, HOW, tmp_path / "cache").name == "../p/1 é"
    assert entry(tmp_path / "cache").name.startswith(".._p_1___"[:8])


def _load(case: Case, folder: Path, results: multiprocessing.Queue[float]) -> None:
    results.put(float(np.abs(cached(case, HOW, folder).image).sum()))


def test_processes_that_want_one_case_at_once_get_it(tmp_path: Path) -> None:
    case, cache = write_case(tmp_path), tmp_path / "cache"
    expected = float(np.abs(prepare(case, HOW).image).sum())
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[float] = context.Queue()
    workers = [context.Process(target=_load, args=(case, cache, results)) for _ in range(6)]
    for worker in workers:
        worker.start()
    sums = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert sums == [expected] * 6
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1

"""Shuttle and the anomaly set that all such data share."""

from __future__ import annotations

import gzip
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedalt.data import AnomalySet, load_shuttle
from fedalt.data import shuttle as room
from fedalt.errors import DataError
from fedalt.seeds import Seeds

HEADER = "f1,f2,f3,f4,f5,f6,f7,f8,f9,anomaly"


def packed(path: Path, *lines: str) -> Path:
    path.write_bytes(gzip.compress("\r\n".join(lines).encode()))
    return path


def test_installed_shuttle_has_its_published_counts() -> None:
    data = load_shuttle(Seeds(0).at("data").numpy())
    assert data.train_x.shape[1] == 9
    assert len(data.train_x) + len(data.test_x) == 49_097
    assert int(data.test_attack.sum()) == 3_511
    assert len(data.train_x) == round(0.6 * (49_097 - 3_511))
    assert set(data.test_family) == {"normal", "anomaly"}


def test_split_follows_the_seed_and_loses_no_row(tmp_path: Path) -> None:
    rows = [f"{i},0,0,0,0,0,0,0,{i},{int(i % 5 == 0)}" for i in range(50)]
    path = packed(tmp_path / "s.gz", HEADER, *rows)
    one = load_shuttle(np.random.default_rng(1), path=path)
    two = load_shuttle(np.random.default_rng(1), path=path)
    other = load_shuttle(np.random.default_rng(2), path=path)
    np.testing.assert_array_equal(one.train_x, two.train_x)
    assert not np.array_equal(one.train_x, other.train_x)
    seen = np.concatenate([one.train_x[:, 0], one.test_x[:, 0]])
    assert sorted(seen) == list(range(50))
    assert not np.any(one.train_x[:, 0] % 5 == 0)
    np.testing.assert_array_equal(one.test_attack, one.test_x[:, 0] % 5 == 0)


ROW = "1,2,3,4,5,6,7,8,9,0"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a,b", ROW], r"line 1: header is 'a,b', expected 'f1,f2"),
        ([HEADER, ROW, "1,2"], r"line 3: 2 columns, expected 10"),
        ([HEADER, ROW, ROW.replace("5", "x")], r"line 3, column 'f5': 'x' is not a finite number"),
        ([HEADER, ROW.replace("5", "nan")], r"line 2, column 'f5': 'nan' is not a finite number"),
        ([HEADER, ROW, ROW[:-1] + "2"], r"line 3, column 'anomaly': '2' is not 0 or 1"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_shuttle(np.random.default_rng(0), path=packed(tmp_path / "s.gz", *lines))


def test_truncated_file_and_bad_fraction(tmp_path: Path) -> None:
    path = packed(tmp_path / "s.gz", HEADER, ROW)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match="damaged or truncated"):
        load_shuttle(np.random.default_rng(0), path=path)
    with pytest.raises(DataError, match=r"train_fraction is 1\.5"):
        load_shuttle(np.random.default_rng(0), train_fraction=1.5)


def test_river_missing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "find_spec", lambda _: None)
    with pytest.raises(DataError, match="river, which is not installed; install it"):
        load_shuttle(np.random.default_rng(0))


def tiny() -> AnomalySet:
    family = np.array(["normal", "dos"])
    return AnomalySet(
        name="tiny",
        features=("a", "b"),
        train_x=np.zeros((3, 2)),
        test_x=np.ones((2, 2)),
        test_attack=np.array([False, True]),
        test_family=family,
        test_label=family,
        source="made up",
    )


def test_anomaly_set_names_what_is_wrong() -> None:
    data = tiny()
    holed = data.test_x.copy()
    holed[1, 0] = np.inf
    with pytest.raises(DataError, match="tiny: test row 1, column 'a' is inf"):
        replace(data, test_x=holed)
    with pytest.raises(DataError, match=r"train has shape \(3, 1\).*expected \(rows, 2\)"):
        replace(data, train_x=np.zeros((3, 1)))
    with pytest.raises(DataError, match="type float32"):
        replace(data, train_x=np.zeros((3, 2), np.float32))
    with pytest.raises(DataError, match="train has no rows"):
        replace(data, train_x=np.zeros((0, 2)))
    with pytest.raises(DataError, match=r"test_label has shape \(1,\)"):
        replace(data, test_label=np.array(["normal"]))
    with pytest.raises(DataError, match="test row 1 is of family 'dos' but has attack = False"):
        replace(data, test_attack=np.array([False, False]))
    with pytest.raises(DataError, match="feature names repeat: a, a"):
        replace(data, features=("a", "a"))


def test_columns_are_found_by_name() -> None:
    assert tiny().column("b") == 1
    with pytest.raises(DataError, match="tiny has no feature 'c'"):
        tiny().column("c")


def test_importing_the_room_is_cheap_and_shuttle_does_not_import_river() -> None:
    program = (
        "import sys, numpy; import fedalt.data as d; "
        "d.load_shuttle(numpy.random.default_rng(0)); "
        "heavy = {'torch', 'matplotlib', 'pandas', 'river', 'sklearn', 'pooch', 'flwr'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"

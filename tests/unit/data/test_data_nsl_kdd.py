"""NSL-KDD: the published counts on the real file, and every kind of damage refused."""

from __future__ import annotations

import os
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fedalt.data import load_nsl_kdd
from fedalt.data.nsl_kdd import parse
from fedalt.data.nsl_kdd_names import COLUMNS, FAMILIES, FEATURES
from fedalt.errors import DataError

REAL = os.environ.get("FEDALT_DATA")
needs_real = pytest.mark.skipif(not REAL, reason="FEDALT_DATA is unset: no real NSL-KDD to read")


def line(label: str = "normal", **values: str) -> str:
    fields = {name: str(i) for i, name in enumerate(COLUMNS)}
    fields |= {"protocol_type": "tcp", "service": "ftp_data", "flag": "SF"}
    fields |= {"label": label, "difficulty": "21", **values}
    return ",".join(fields.values())


def text(*lines: str) -> bytes:
    return "".join(f"{item}\n" for item in lines).encode()


TRAIN = text(line(), line("neptune"), line(duration="7"))
TEST = text(line("mscan"), line(), line("snmpguess"), line("xterm"), line("smurf"))


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FEDALT_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def as_zip(path: Path, **members: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.txt", data)
    return path


def test_thirty_four_numeric_features() -> None:
    assert len(COLUMNS) == 43
    assert len(FEATURES) == 34
    assert not {"protocol_type", "land", "logged_in", "label"} & set(FEATURES)
    labels = [label for family in FAMILIES.values() for label in family]
    assert len(labels) == len(set(labels)) == 40


@pytest.mark.parametrize("where", ["nsl_kdd/NSL_KDD.zip", "NSL_KDD.zip", "nsl_kdd", "."])
def test_zip_and_extracted_files_read_alike(tmp_path: Path, where: str) -> None:
    if where.endswith("zip"):
        as_zip(tmp_path / where, **{"KDDTrain+": TRAIN, "KDDTest+": TEST})
    else:
        (tmp_path / where).mkdir(exist_ok=True)
        (tmp_path / where / "KDDTrain+.txt").write_bytes(TRAIN)
        (tmp_path / where / "KDDTest+.txt").write_bytes(TEST)
    data = load_nsl_kdd(tmp_path, check_rows=False)
    assert data.train_x.shape == (2, 34)
    assert data.train_x[:, data.column("duration")].tolist() == [0.0, 7.0]
    assert data.test_x[0, data.column("dst_bytes")] == COLUMNS.index("dst_bytes")
    assert data.test_family.tolist() == ["probe", "normal", "r2l", "u2r", "dos"]
    assert data.test_label.tolist() == ["mscan", "normal", "snmpguess", "xterm", "smurf"]
    assert data.test_attack.tolist() == [True, False, True, True, True]


def test_line_endings_and_a_missing_last_one_do_not_matter() -> None:
    plain = parse(TRAIN, "f")
    for data in (TRAIN.replace(b"\n", b"\r\n"), TRAIN[:-1]):
        np.testing.assert_array_equal(parse(data, "f").values, plain.values)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (text(line(), line() + ",1"), r"'f', line 2: 44 columns, expected 43"),
        (text(line(), "", line()), r"'f', line 2: 0 columns, expected 43"),
        (text(line(), line()[:40], line()), r"'f', line 2: \d+ columns, expected 43"),
        (text(line(), line())[:-30], r"line 2: the last line is incomplete, the file is trunc"),
        (text(line(), line())[:-3], r"line 2: the last line is incomplete, the file is truncated"),
        (text(line(), line(src_bytes="abc")), r"line 2, column 'src_bytes': 'abc' is not a finite"),
        (text(line(src_bytes="")), r"line 1, column 'src_bytes': '' is not a finite number"),
        (text(line(hot="nan")), r"line 1, column 'hot': 'nan' is not a finite number"),
        (text(line(), line(count="inf")), r"line 2, column 'count': 'inf' is not a finite number"),
        (text(line(count="1_0")), r"line 1, column 'count': '1_0' is not a finite number"),
        (text(line(), line("neptun")), r"line 2: unknown attack 'neptun' \(did you mean 'neptune'"),
        (text(line(), line("µ")), r"'f', line 2: not ASCII text"),
        (b"", "'f' is empty"),
    ],
)
def test_bad_rows_are_named(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse(data, "f")


def test_a_bad_row_far_down_is_named_by_its_line_in_the_file() -> None:
    rows = [line()] * 9_000
    rows[8_500] = line(urgent="x")
    with pytest.raises(DataError, match="line 8501, column 'urgent'"):
        parse(text(*rows), "f")


def test_row_counts_of_official_names(tmp_path: Path) -> None:
    as_zip(tmp_path / "NSL_KDD.zip", **{"KDDTrain+": TRAIN, "KDDTest+": TEST})
    with pytest.raises(DataError, match="is truncated: 3 rows, published are 125973"):
        load_nsl_kdd(tmp_path)
    with pytest.raises(DataError, match="is not the published file: 3 rows, published are 2"):
        parse(TRAIN, "f", expected_rows=2)


def test_damaged_archives(tmp_path: Path) -> None:
    path = as_zip(tmp_path / "NSL_KDD.zip", **{"KDDTrain+": TRAIN * 50, "KDDTest+": TEST})
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with pytest.raises(DataError, match=r"NSL_KDD.zip' is damaged or truncated"):
        load_nsl_kdd(tmp_path, check_rows=False)
    path.write_bytes(whole[:60] + bytes(20) + whole[80:])
    with pytest.raises(DataError, match=r"NSL_KDD.zip' is damaged or truncated"):
        load_nsl_kdd(tmp_path, check_rows=False)
    as_zip(path, **{"KDDTrain+": TRAIN})
    with pytest.raises(DataError, match=r"holds no KDDTest\+\.txt \(it holds: KDDTrain\+\.txt\)"):
        load_nsl_kdd(tmp_path, check_rows=False)


def test_not_found_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"KDDTrain\+ was not found .*NSL_KDD.zip or .*Request"):
        load_nsl_kdd(tmp_path)


@needs_real
def test_published_counts_of_the_real_file() -> None:
    started = time.process_time()
    data = load_nsl_kdd(REAL)
    assert time.process_time() - started < 15.0  # 1.5 s on an idle core
    assert data.train_x.shape == (67_343, 34)
    assert data.test_x.shape == (22_544, 34)
    counts = dict(zip(*np.unique(data.test_family, return_counts=True), strict=True))
    assert counts == {"normal": 9_711, "dos": 7_458, "probe": 2_421, "r2l": 2_754, "u2r": 200}
    assert int(data.test_attack.sum()) == 12_833


@needs_real
def test_real_numbers_are_those_of_the_text() -> None:
    with zipfile.ZipFile(Path(str(REAL), "nsl_kdd", "NSL_KDD.zip")) as archive:
        rows = archive.read("KDDTest+.txt").decode().splitlines()
    records = parse("\n".join(rows[:500]).encode(), "f")
    for number in (0, 250, 499):
        fields = dict(zip(COLUMNS, rows[number].split(","), strict=True))
        assert records.values[number].tolist() == [float(fields[name]) for name in FEATURES]
        assert records.labels[number] == fields["label"]

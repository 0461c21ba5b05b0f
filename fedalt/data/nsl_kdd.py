"""NSL-KDD: network connections, normal and attacks, read strictly and fast.

Tavallaee, Bagheri, Lu and Ghorbani, A detailed analysis of the KDD CUP 99 data set, CISDA
2009. One record a line, 43 columns, no header. The provider asks for a citation and keeps
its own download page, so nothing is downloaded here.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedalt.data.anomaly import NORMAL, AnomalySet
from fedalt.data.folder import DataFolder, data_folder, find_file, read_bytes
from fedalt.data.nsl_kdd_names import COLUMNS, FAMILY_OF, FEATURES, PUBLISHED_ROWS
from fedalt.errors import DataError, nearest

ARCHIVE = "NSL_KDD.zip"
OBTAIN = (
    "Request NSL-KDD from the Canadian Institute for Cybersecurity "
    "(https://www.unb.ca/cic/datasets/nsl.html) or take it from a mirror."
)
POSITIONS = tuple(COLUMNS.index(name) for name in FEATURES)
LABEL = COLUMNS.index("label")
# Lines parsed at a time: enough to be fast, few enough that their text needs little memory.
CHUNK = 8_192


@dataclass(frozen=True)
class Records:
    """One file's rows: values (rows, 34) float64 and labels (rows,) text."""

    values: np.ndarray
    labels: np.ndarray


def load_nsl_kdd(
    root: str | Path | None = None,
    *,
    train: str = "KDDTrain+",
    test: str = "KDDTest+",
    check_rows: bool = True,
) -> AnomalySet:
    """Load NSL-KDD's 34 numeric features: the normals of ``train`` and all of ``test``.

    Reads ``nsl_kdd/NSL_KDD.zip``, ``NSL_KDD.zip`` or the extracted ``.txt`` files of the
    named folder or the cache. ``check_rows`` holds the official files to their published
    row counts. Raises :class:`DataError` naming file, line and column.
    """
    folder = data_folder(root)
    learn, learn_from = _load(folder, train, check_rows)
    judge, judge_from = _load(folder, test, check_rows)
    family = np.array([FAMILY_OF[label] for label in judge.labels.tolist()])
    return AnomalySet(
        name="NSL-KDD",
        features=FEATURES,
        train_x=learn.values[learn.labels == NORMAL],
        test_x=judge.values,
        test_attack=family != NORMAL,
        test_family=family,
        test_label=judge.labels,
        source=f"NSL-KDD, normals of {learn_from}, all of {judge_from}",
    )


def _load(folder: DataFolder, name: str, check_rows: bool) -> tuple[Records, str]:
    """Read one file from wherever it is; return its rows and where that was."""
    wanted = [f"nsl_kdd/{ARCHIVE}", ARCHIVE, f"nsl_kdd/{name}.txt", f"{name}.txt"]
    path = find_file(folder, wanted, what=f"NSL-KDD's {name}", obtain=OBTAIN)
    if path.suffix == ".zip":
        where, data = f"{path}/{name}.txt", _read_member(path, f"{name}.txt")
    else:
        where, data = str(path), read_bytes(path)
    return parse(data, where, PUBLISHED_ROWS.get(name) if check_rows else None), where


def _read_member(path: Path, name: str) -> bytes:
    """Return a member of the archive, whatever folder it lies in there."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [item for item in archive.namelist() if item.split("/")[-1] == name]
            if not members:
                raise DataError(
                    f"'{path}' holds no {name} (it holds: {', '.join(archive.namelist())})"
                )
            return archive.read(members[0])
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError) as error:
        raise DataError(
            f"'{path}' is damaged or truncated, {name} cannot be read from it ({error}). {OBTAIN}"
        ) from error


def parse(data: bytes, where: str, expected_rows: int | None = None) -> Records:
    """Parse a file's text; ``where`` names it in errors. Raises :class:`DataError`."""
    try:
        lines = data.decode("ascii").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"'{where}', line {line}: not ASCII text ({error.reason})") from error
    ended = lines[-1] == ""
    if ended:
        lines.pop()
    _check_widths(lines, where, ended)
    if expected_rows is not None and len(lines) != expected_rows:
        wrong = "truncated" if len(lines) < expected_rows else "not the published file"
        raise DataError(
            f"'{where}' is {wrong}: {len(lines)} rows, published are {expected_rows}. {OBTAIN}"
        )
    if not lines:
        raise DataError(f"'{where}' is empty. {OBTAIN}")
    values = np.empty((len(lines), len(FEATURES)))
    labels: list[str] = []
    for start in range(0, len(lines), CHUNK):
        columns = list(
            zip(*(line.split(",") for line in lines[start : start + CHUNK]), strict=True)
        )
        for out, position in enumerate(POSITIONS):
            numbers = _numbers(columns[position], where, start, COLUMNS[position])
            values[start : start + CHUNK, out] = numbers
        labels += columns[LABEL]
    _check_labels(labels, where)
    return Records(values, np.array(labels))


def _check_widths(lines: list[str], where: str, ended: bool) -> None:
    """Every line has 43 columns; a short last line without an end means a cut file."""
    for row, line in enumerate(lines):
        if line.count(",") + 1 == len(COLUMNS):
            continue
        found = line.count(",") + 1 if line else 0
        cut = not ended and row == len(lines) - 1 and found < len(COLUMNS)
        wrong = "the last line is incomplete, the file is truncated: " if cut else ""
        raise DataError(
            f"'{where}', line {row + 1}: {wrong}{found} columns, expected {len(COLUMNS)}"
        )
    if not ended and lines and lines[-1].endswith(","):
        raise DataError(
            f"'{where}', line {len(lines)}: the last line is incomplete, the file is truncated"
        )


def _numbers(texts: tuple[str, ...], where: str, start: int, column: str) -> np.ndarray:
    """Convert one column of a chunk; name the line of the first value that is no number."""
    try:
        numbers = np.fromiter(map(float, texts), np.float64, len(texts))
        # float() also reads 1_000, which no data file means as a number.
        fine = bool(np.isfinite(numbers).all()) and "_" not in "".join(texts)
    except ValueError:
        fine = False
    if fine:
        return numbers
    row, text = next((row, text) for row, text in enumerate(texts) if not _is_number(text))
    raise DataError(
        f"'{where}', line {start + row + 1}, column '{column}': '{text}' is not a finite number"
    )


def _is_number(text: str) -> bool:
    try:
        return "_" not in text and bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _check_labels(labels: list[str], where: str) -> None:
    unknown = set(labels) - FAMILY_OF.keys()
    if unknown:
        row, label = next((row, item) for row, item in enumerate(labels) if item in unknown)
        raise DataError(
            f"'{where}', line {row + 1}: unknown attack '{label}'{nearest(label, FAMILY_OF)}"
        )

"""Shuttle: sensor readings of the space shuttle's radiators, with rare anomalies.

Statlog (Shuttle), Catlett, NASA, at the UCI repository, in the anomaly-detection form of
49 097 records × 9 sensors with 7 % anomalies that the river package carries. Only river's
data file is read; the package is not imported.
"""

from __future__ import annotations

import gzip
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from fedalt.data.anomaly import NORMAL, AnomalySet
from fedalt.data.folder import read_bytes
from fedalt.errors import DataError

HEADER = (*(f"f{i}" for i in range(1, 10)), "anomaly")
PUBLISHED_ROWS = 49_097


def load_shuttle(
    rng: np.random.Generator, *, train_fraction: float = 0.6, path: Path | None = None
) -> AnomalySet:
    """Load Shuttle: a random ``train_fraction`` of the normals to learn from, the rest to test.

    ``path`` replaces the file inside the installed river package, and is then not held to
    the published row count. Raises :class:`DataError`.
    """
    if not 0.0 < train_fraction < 1.0:
        raise DataError(f"train_fraction is {train_fraction}, but must lie between 0 and 1")
    file = shuttle_file() if path is None else path
    values, attack = _read(file)
    if path is None and len(values) != PUBLISHED_ROWS:
        raise DataError(
            f"'{file}' holds {len(values)} rows, published are {PUBLISHED_ROWS}; reinstall river"
        )
    normal = rng.permutation(np.flatnonzero(~attack))
    cut = round(train_fraction * len(normal))
    test = np.sort(np.concatenate([normal[cut:], np.flatnonzero(attack)]))
    family = np.where(attack[test], "anomaly", NORMAL)
    return AnomalySet(
        name="Shuttle",
        features=HEADER[:-1],
        train_x=values[np.sort(normal[:cut])],
        test_x=values[test],
        test_attack=attack[test],
        test_family=family,
        test_label=family.copy(),
        source="Statlog Shuttle, from the installed river package" if path is None else str(file),
    )


def shuttle_file() -> Path:
    """Return the data file inside the installed river package, without importing it."""
    spec = find_spec("river")
    if spec is None or spec.origin is None:
        raise DataError("Shuttle comes with the package river, which is not installed; install it")
    file = Path(spec.origin).parent / "datasets" / "shuttle.csv.gz"
    if not file.is_file():
        raise DataError(
            f"the installed river package holds no '{file}'; install river 0.22 or later"
        )
    return file


def _read(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the sensors (rows, 9) and whether each row is an anomaly."""
    try:
        lines = gzip.decompress(read_bytes(file)).decode("ascii").splitlines()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"'{file}' is damaged or truncated ({error}); reinstall river") from error
    if not lines or tuple(lines[0].split(",")) != HEADER:
        found = lines[0] if lines else "nothing"
        raise DataError(f"'{file}', line 1: header is '{found}', expected '{','.join(HEADER)}'")
    rows = [line.split(",") for line in lines[1:]]
    for number, row in enumerate(rows, start=2):
        if len(row) != len(HEADER):
            raise DataError(f"'{file}', line {number}: {len(row)} columns, expected {len(HEADER)}")
    values = np.empty((len(rows), len(HEADER)))
    for column, name in enumerate(HEADER):
        values[:, column] = _numbers([row[column] for row in rows], file, name)
    odd = np.flatnonzero(~np.isin(values[:, -1], (0.0, 1.0)))
    if len(odd):
        raise DataError(
            f"'{file}', line {odd[0] + 2}, column 'anomaly': '{rows[odd[0]][-1]}' is not 0 or 1"
        )
    return values[:, :-1].copy(), values[:, -1] == 1.0


def _numbers(texts: list[str], file: Path, column: str) -> np.ndarray:
    numbers = np.empty(len(texts))
    for row, text in enumerate(texts):
        try:
            numbers[row] = float(text)
        except ValueError:
            numbers[row] = np.nan
        if not np.isfinite(numbers[row]):
            raise DataError(
                f"'{file}', line {row + 2}, column '{column}': '{text}' is not a finite number"
            )
    return numbers

"""UCI heart disease: patients of four hospitals, 13 measurements and a diagnosis each.

Janosi, Steinbrunn, Pfisterer and Detrano, Heart Disease, UCI Machine Learning Repository,
doi:10.24432/C52P4X, CC BY 4.0; collected at the Cleveland Clinic, the Hungarian Institute of
Cardiology, the University Hospitals of Zurich and Basel, and the VA Medical Center Long Beach.
One patient a line, 14 columns, no header; ``?`` is a value that nobody recorded. A blood pressure
or a cholesterol of 0 is none either: Switzerland wrote 0 for each of its 123 patients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedalt.data.folder import DataFolder, data_folder, find_file, read_bytes
from fedalt.errors import DataError

HOSPITALS: Mapping[str, int] = {"cleveland": 303, "hungarian": 294, "switzerland": 123, "va": 200}
"""The hospitals, as their files are named, and how many patients each published."""
OBTAIN = (
    "Take processed.cleveland.data, processed.hungarian.data, processed.switzerland.data and "
    "processed.va.data from https://archive.ics.uci.edu/dataset/45/heart+disease (CC BY 4.0) "
    "into a folder heart_uci4."
)
CODES: Mapping[str, tuple[float, ...]] = {
    "sex": (0, 1),
    "cp": (1, 2, 3, 4),
    "fbs": (0, 1),
    "restecg": (0, 1, 2),
    "exang": (0, 1),
    "slope": (1, 2, 3),
    "ca": (0, 1, 2, 3),
    "thal": (3, 6, 7),
    "num": (0, 1, 2, 3, 4),
}
"""The values that columns of codes may have; the other columns are measured."""
FEATURES = (
    "age", "sex", "cp", "trestbps", "chol", "fbs", "restecg",
    "thalach", "exang", "oldpeak", "slope", "ca", "thal",
)  # fmt: skip
COLUMNS = (*FEATURES, "num")
ZERO_IS_MISSING = ("trestbps", "chol")
MISSING = "?"


@dataclass(frozen=True)
class Patients:
    """One hospital's patients: ``values`` (n, 13) with NaN where nobody recorded one.

    The columns are ``FEATURES``. ``diagnosis`` (n,) is 0 where no major vessel is narrowed by
    half or more, else 1 to 4.
    """

    hospital: str
    values: np.ndarray
    diagnosis: np.ndarray

    @property
    def disease(self) -> np.ndarray:
        """Whether the diagnosis is a disease (n,), the usual target."""
        return self.diagnosis > 0


def load_heart(root: str | Path | None = None, *, check_rows: bool = True) -> tuple[Patients, ...]:
    """Load the four hospitals, in the order of ``HOSPITALS``.

    Reads ``heart_uci4/processed.NAME.data`` of the named folder or the cache, or the files lying
    loose in either. ``check_rows`` holds each to its published number of patients. Raises
    :class:`DataError` naming file, line and column.
    """
    folder = data_folder(root)
    return tuple(_load(folder, name, rows if check_rows else None)
                 for name, rows in HOSPITALS.items())  # fmt: skip


def _load(folder: DataFolder, name: str, expected: int | None) -> Patients:
    file = f"processed.{name}.data"
    wanted = [f"heart_uci4/{file}", file]
    path = find_file(folder, wanted, what=f"Heart disease's {name}", obtain=OBTAIN)
    return parse(read_bytes(path), name, str(path), expected)


def parse(data: bytes, hospital: str, where: str, expected: int | None = None) -> Patients:
    """Parse one hospital's text; ``where`` names it in errors. Raises :class:`DataError`."""
    try:
        lines = data.decode("ascii").splitlines()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"'{where}', line {line}: not ASCII text ({error.reason})") from error
    if not lines:
        raise DataError(f"'{where}' is empty. {OBTAIN}")
    rows = [line.split(",") for line in lines]
    for number, row in enumerate(rows, start=1):
        if len(row) != len(COLUMNS):
            raise DataError(
                f"'{where}', line {number}: {len(row)} columns, expected {len(COLUMNS)} "
                f"({', '.join(COLUMNS)})"
            )
    if expected is not None and len(rows) != expected:
        wrong = "truncated" if len(rows) < expected else "not the published file"
        raise DataError(
            f"'{where}' is {wrong}: {len(rows)} patients, published are {expected}. {OBTAIN}"
        )
    values = np.array(
        [
            [
                _number(text.strip(), where, number, name)
                for text, name in zip(row, COLUMNS, strict=True)
            ]
            for number, row in enumerate(rows, start=1)
        ]
    )
    return Patients(hospital, values[:, :-1].copy(), values[:, -1].astype(np.int64))


def _number(text: str, where: str, line: int, column: str) -> float:
    """Read one value; NaN where it is missing, which the diagnosis must not be."""
    place = f"'{where}', line {line}, column '{column}'"
    if text == MISSING:
        if column == "num":
            raise DataError(f"{place}: a patient without a diagnosis; remove the line")
        return np.nan
    try:
        value = np.nan if "_" in text else float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise DataError(f"{place}: '{text}' is not a finite number, nor {MISSING} for none")
    known = CODES.get(column)
    if known is not None and value not in known:
        told = ", ".join(f"{code:g}" for code in known)
        raise DataError(f"{place}: '{text}' is none of the codes {told}")
    return np.nan if value == 0.0 and column in ZERO_IS_MISSING else value

"""Heart disease of four hospitals: rows, missing values, errors, and an encoding without data."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from fedalt.data.heart import COLUMNS, FEATURES, HOSPITALS, load_heart, parse
from fedalt.data.heart_features import ENCODED, RANGES, encode
from fedalt.errors import DataError

REAL = Path(os.environ.get("FEDALT_DATA", "")) / "heart_uci4"
needs_heart = pytest.mark.skipif(not REAL.is_dir(), reason="FEDALT_DATA holds no heart_uci4")
ROW = "63,1,4,140,260,0,1,112,1,3,2,?,7,2"


@needs_heart
def test_hospitals_have_their_published_patients_and_diagnoses() -> None:
    hospitals = load_heart()
    assert {each.hospital: len(each.values) for each in hospitals} == dict(HOSPITALS)
    counted = {each.hospital: np.bincount(each.diagnosis).tolist() for each in hospitals}
    # heart-disease.names, section 10; Hungary's processed file tells only 0 from 1.
    assert counted["cleveland"] == [164, 55, 36, 35, 13]
    assert counted["hungarian"] == [188, 106]
    assert counted["switzerland"] == [8, 48, 32, 30, 5]
    assert counted["va"] == [51, 56, 41, 42, 10]


@needs_heart
def test_a_zero_of_pressure_or_cholesterol_is_missing() -> None:
    by_name = {each.hospital: each.values for each in load_heart()}
    chol, pressure = FEATURES.index("chol"), FEATURES.index("trestbps")
    assert np.isnan(by_name["switzerland"][:, chol]).all()
    assert np.isnan(by_name["va"][:, chol]).sum() == 7 + 49
    assert np.isnan(by_name["va"][:, pressure]).sum() == 56 + 1
    # A zero of anything else is a value.
    assert (by_name["cleveland"][:, FEATURES.index("oldpeak")] == 0.0).sum() == 99


@needs_heart
def test_encoding_knows_no_data() -> None:
    values = np.concatenate([each.values for each in load_heart()])
    encoded = encode(values)
    assert encoded.shape == (920, len(ENCODED)) and encoded.dtype == np.float32
    assert np.isfinite(encoded).all() and np.abs(encoded).max() <= 1.0
    # A patient among others is encoded as when alone: no statistics of the others enter.
    for row in (0, 400, 919):
        np.testing.assert_array_equal(encode(values[row : row + 1])[0], encoded[row])


def test_one_patient_is_encoded_as_the_rules_say() -> None:
    values = parse(ROW.encode(), "va", "f").values
    found = dict(zip(ENCODED, encode(values)[0].tolist(), strict=True))
    low, high = RANGES["chol"]
    assert found["chol"] == pytest.approx((2 * 260 - low - high) / (high - low))
    assert (found["cp=4"], found["cp=1"], found["thal=7"], found["slope=2"]) == (1, 0, 1, 1)
    assert (found["ca"], found["ca missing"], found["thal missing"]) == (0, 1, 0)
    far = parse(ROW.replace("260", "603").encode(), "va", "f").values
    assert dict(zip(ENCODED, encode(far)[0].tolist(), strict=True))["chol"] == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'f' is empty"),
        (ROW[:-2], r"'f', line 1: 13 columns, expected 14 \(age, sex"),
        (ROW + "\n" + ROW.replace("63", "?x"), r"line 2, column 'age': '\?x' is not a finite"),
        (ROW.replace("63", "inf"), "column 'age': 'inf' is not a finite"),
        (ROW.replace("63", "1_0"), "column 'age': '1_0' is not a finite"),
        (ROW.replace(",7,", ",5,"), "column 'thal': '5' is none of the codes 3, 6, 7"),
        (ROW[:-1] + "?", "column 'num': a patient without a diagnosis"),
        (ROW[:-1] + "9", "column 'num': '9' is none of the codes"),
        (ROW.replace("63", "é"), "line 1: not ASCII"),
    ],
)
def test_bad_lines_are_named(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse(text.encode("latin-1"), "va", "f")


def test_missing_and_short_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cleveland was not found .* wanted: heart_uci4/proc"):
        load_heart(tmp_path)
    for name in HOSPITALS:
        (tmp_path / f"processed.{name}.data").write_text(f"{ROW}\n{ROW}\n")
    with pytest.raises(DataError, match="truncated: 2 patients, published are 303"):
        load_heart(tmp_path)
    loose = load_heart(tmp_path, check_rows=False)
    assert [len(each.values) for each in loose] == [2] * 4
    assert loose[0].disease.tolist() == [True, True]
    assert len(COLUMNS) == 14


def test_encoding_names_what_is_wrong() -> None:
    with pytest.raises(DataError, match=r"shape \(3, 2\), expected \(n, 13\)"):
        encode(np.zeros((3, 2)))
    holed = parse(ROW.encode(), "va", "f").values
    holed[0, 0] = np.nan
    with pytest.raises(DataError, match="patient 0: age is missing"):
        encode(holed)

"""NIfTI files: every orientation reads as RAS+, and every fault names its file."""

from __future__ import annotations

import gzip
import sys
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nifti_files import AFFINE, body, write, write_case

from fedalt.errors import ConfigError, DataError
from fedalt.medical.volume import read_image, read_label, read_pair


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "PIR", "SLA", "ASR"])
def test_every_orientation_reads_as_ras(tmp_path: Path, axes: str) -> None:
    case = write_case(tmp_path, axes=axes)
    assert "".join(nibabel.aff2axcodes(nibabel.load(case.image).affine)) == axes
    image, label = read_pair(case)
    expected = body()
    assert image.values.dtype == np.float32
    np.testing.assert_array_equal(image.values, expected[0])
    np.testing.assert_array_equal(label.values, expected[1])
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-5)
    np.testing.assert_allclose(image.spacing, [3, 2, 4], rtol=1e-6)


def test_image_and_label_may_lie_differently_on_one_grid(tmp_path: Path) -> None:
    case = write_case(tmp_path, axes="LPS")
    write(case.label, body()[1], axes="SRA")
    np.testing.assert_array_equal(read_pair(case)[1].values, body()[1])


def test_an_oblique_scan_keeps_its_tilt(tmp_path: Path) -> None:
    tilt = np.eye(4)
    tilt[1:3, 1:3] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
    image = read_image(write(tmp_path / "a.nii", body()[0], tilt @ AFFINE, "LPS"))
    np.testing.assert_allclose(image.affine, tilt @ AFFINE, atol=1e-4)
    np.testing.assert_allclose(image.spacing, [3, 2, 4], rtol=1e-5)


def test_one_channel_or_time_is_dropped_and_more_are_refused(tmp_path: Path) -> None:
    values = body()[0]
    for name, many in (("one", 1), ("two", 2)):
        stacked = np.stack([values] * many, axis=-1)
        nibabel.save(nibabel.Nifti1Image(stacked, AFFINE), tmp_path / f"{name}.nii")
    np.testing.assert_array_equal(read_image(tmp_path / "one.nii").values, values)
    with pytest.raises(DataError, match=r"two.nii' has shape \(14, 10, 8, 2\)"):
        read_image(tmp_path / "two.nii")


def test_scaled_and_wide_values_are_read(tmp_path: Path) -> None:
    header = nibabel.Nifti1Header()
    header.set_slope_inter(0.5, 10)
    header.set_data_dtype(np.int16)
    path = tmp_path / "a.nii"
    nibabel.save(nibabel.Nifti1Image(body()[0] * 0.5, AFFINE, header), path)
    np.testing.assert_allclose(read_image(path).values, body()[0] * 0.5, atol=0.3)
    wide = write(tmp_path / "b.nii.gz", body()[1].astype(np.int64), axes="LPS")
    np.testing.assert_array_equal(read_label(wide).values, body()[1])
    floats = write(tmp_path / "c.nii.gz", body()[1].astype(np.float32))
    assert np.issubdtype(read_label(floats).values.dtype, np.integer)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii"])
@pytest.mark.parametrize("content", [b"", b"not a volume at all", bytes(range(256)) * 8])
def test_bytes_that_are_no_nifti_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}' is (no|a damaged or truncated) NIfTI file"):
        read_image(tmp_path / name)
    (tmp_path / name).write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=rf"{name}' is (no|a damaged or truncated) NIfTI file"):
        read_image(tmp_path / name)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii"])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, body()[0])
    whole = path.read_bytes()
    for length in (len(whole) // 2, len(whole) - 20):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=f"{name}' is a damaged or truncated NIfTI"):
            read_image(path)
    path.unlink()
    with pytest.raises(DataError, match=f"{name}' does not exist"):
        read_image(path)


def test_another_format_is_refused(tmp_path: Path) -> None:
    nibabel.save(nibabel.MGHImage(body()[0].astype(np.float32), AFFINE), tmp_path / "a.mgz")
    with pytest.raises(DataError, match=r"a.mgz' is no NIfTI file but MGHImage"):
        read_image(tmp_path / "a.mgz")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_not_finite_are_counted(tmp_path: Path, value: float) -> None:
    image = body()[0].astype(np.float32)
    image[3, 4, 5] = image[0, 0, 0] = value
    with pytest.raises(DataError, match=r"a.nii' has 2 voxels that are NaN or infinite"):
        read_image(write(tmp_path / "a.nii", image))


@pytest.mark.parametrize(("value", "shown"), [(0.5, "0.5"), (np.nan, "nan"), (np.inf, "inf")])
def test_labels_are_whole_numbers(tmp_path: Path, value: float, shown: str) -> None:
    ids = body()[1].astype(np.float32)
    ids[3, 4, 5] = value
    with pytest.raises(DataError, match=f"a.nii' has the value {shown}"):
        read_label(write(tmp_path / "a.nii", ids))


def test_labels_start_at_zero(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a.nii' has the value -1"):
        read_label(write(tmp_path / "a.nii", body()[1].astype(np.int16) - 1))


def test_a_label_has_its_images_grid(tmp_path: Path) -> None:
    case = write_case(tmp_path)
    write(case.label, body()[1][:-1])
    with pytest.raises(DataError, match=r"\(14, 10, 8\).*a_labels.*\(13, 10, 8\)"):
        read_pair(case)
    moved = AFFINE.copy()
    moved[0, 3] += 0.15
    write(case.label, body()[1], moved)
    read_pair(case)
    moved[0, 3] += 0.1
    write(case.label, body()[1], moved)
    with pytest.raises(DataError, match=r"a_image.*a_labels.*0.25 mm apart"):
        read_pair(case)
    wider = AFFINE @ np.diag([1.05, 1, 1, 1])
    write(case.label, body()[1], wider)
    with pytest.raises(DataError, match=r"1.95 mm apart"):
        read_pair(case)


def test_a_file_that_does_not_say_how_it_lies_is_refused(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(body()[0], None), tmp_path / "a.nii")
    with pytest.raises(DataError, match=r"a.nii' does not say how it lies"):
        read_image(tmp_path / "a.nii")
    flat = AFFINE.copy()
    flat[2, 2] = 0
    image = nibabel.Nifti1Image(body()[0], None)
    image.header.set_sform(flat, code=1)
    nibabel.save(nibabel.Nifti1Image(body()[0], None, image.header), tmp_path / "b.nii")
    with pytest.raises(DataError, match=r"b.nii' has the affine .* spans no volume"):
        read_image(tmp_path / "b.nii")


def test_colours_are_refused(tmp_path: Path) -> None:
    colours = np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colours, AFFINE), tmp_path / "a.nii")
    with pytest.raises(DataError, match=r"a.nii' holds .* voxels; one plain number"):
        read_image(tmp_path / "a.nii")


def test_without_nibabel_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.nii", body()[0])
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(ConfigError, match=r"pip install 'fedalt\[medical\]'"):
        read_image(path)


def test_a_label_that_is_missing_is_named(tmp_path: Path) -> None:
    case = replace(write_case(tmp_path), label=tmp_path / "gone.nii")
    with pytest.raises(DataError, match=r"gone.nii' does not exist"):
        read_pair(case)

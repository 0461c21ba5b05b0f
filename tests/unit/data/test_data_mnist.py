"""IDX files and the image sets: read exactly, or refused with the reason."""

from __future__ import annotations

import gzip
import os
import struct
import tempfile
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedalt.data import ImageSet, load_fashion_mnist, load_mnist, read_idx
from fedalt.data.mnist import SHA256
from fedalt.errors import DataError

REAL = os.environ.get("FEDALT_DATA")
CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx(array: np.ndarray) -> bytes:
    """Write IDX the way its description says."""
    code = CODES[array.dtype.str[1:]]
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def small_set(folder: Path, packed: bool = True) -> dict[str, np.ndarray]:
    """Write four small files under MNIST's names."""
    rng = np.random.default_rng(0)
    arrays = {}
    folder.mkdir(parents=True)
    for name in SHA256:
        rows = 20 if name.startswith("train") else 8
        shape = (rows, 28, 28) if "images" in name else (rows,)
        array = rng.integers(10, size=shape, dtype=np.uint8)
        arrays[name.split("-idx")[0]] = array
        if packed:
            (folder / name).write_bytes(gzip.compress(idx(array), mtime=0))
        else:
            (folder / name.removesuffix(".gz")).write_bytes(idx(array))
    return arrays


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FEDALT_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from(["u1", "i1", "i2", "i4"]),
        hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4),
    )
)
def test_every_array_comes_back(array: np.ndarray) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a")
        for data in (idx(array), gzip.compress(idx(array), mtime=0)):
            path.write_bytes(data)
            np.testing.assert_array_equal(read_idx(path), array)


@pytest.mark.parametrize("kind", sorted(CODES))
def test_every_type_comes_back_native_and_writable(tmp_path: Path, kind: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(kind)
    (tmp_path / "a").write_bytes(idx(array))
    read = read_idx(tmp_path / "a")
    np.testing.assert_array_equal(read, array)
    assert read.dtype == array.dtype
    assert read.dtype.isnative
    assert read.flags.writeable


GOOD = idx(np.zeros((3, 4), np.uint8))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (GOOD[:-1], r"expected 24 bytes for shape \(3, 4\) of uint8, found 23 \(1 missing\)"),
        (GOOD + b"!!", r"expected 24 bytes .* found 26 \(2 trailing\)"),
        (GOOD[:7], r"expected 12 bytes for a header of 2 dimensions, found 7 \(5 missing\)"),
        (b"\x01" + GOOD[1:], "not an IDX file: it starts with 01 00 08 02"),
        (b"", "not an IDX file: it starts with nothing"),
        (b"\0\0\x07\x01" + GOOD[4:], "unknown IDX type 0x07"),
        (gzip.compress(GOOD, mtime=0)[:-9], "damaged or truncated gzip file"),
        (gzip.compress(GOOD, mtime=0) + b"rubbish", "damaged or truncated gzip file"),
        (gzip.compress(GOOD + b"!", mtime=0), r"found 25 \(1 trailing\)"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "bad-idx"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("layout", ["mnist", "MNIST/raw"])
def test_mnist_is_read_from_a_named_folder(tmp_path: Path, layout: str, packed: bool) -> None:
    arrays = small_set(tmp_path / "data" / layout, packed)
    data = load_mnist(tmp_path / "data", check_counts=False)
    np.testing.assert_array_equal(data.train_x, arrays["train-images"])
    np.testing.assert_array_equal(data.test_y, arrays["t10k-labels"])
    assert data.train_y.dtype == np.int64
    assert str(tmp_path) in data.source


def test_counts_are_held_to_the_published_ones(tmp_path: Path) -> None:
    small_set(tmp_path / "mnist")
    with pytest.raises(DataError, match=r"holds shape \(20, 28, 28\), published is \(60000, 28"):
        load_mnist(tmp_path)


def test_one_of_four_files_missing(tmp_path: Path) -> None:
    small_set(tmp_path / "mnist")
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz' is missing beside"):
        load_mnist(tmp_path, check_counts=False)


def test_a_named_folder_without_mnist_is_an_error_even_with_download(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"MNIST was not found in .* task.root"):
        load_mnist(tmp_path, download=True)


def test_digits_stand_in_when_nothing_is_named() -> None:
    data = load_mnist()
    assert data.train_x.shape == (1437, 28, 28)
    assert data.test_x.shape == (360, 28, 28)
    assert (data.train_x.min(), data.train_x.max()) == (0, 255)
    assert "scikit-learn digits" in data.source
    assert set(data.test_y) == set(range(10))


def test_cache_comes_before_the_stand_in(tmp_path: Path) -> None:
    small_set(tmp_path / "cache" / "fedalt" / "mnist")
    assert load_mnist(check_counts=False).name == "MNIST"


def test_download_asks_for_every_file_by_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pooch

    asked = {}

    def retrieve(url: str, known_hash: str, fname: str, path: Path) -> None:
        asked[fname] = (url, known_hash)
        if len(asked) == len(SHA256):
            small_set(path)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    assert load_mnist(download=True, check_counts=False).name == "MNIST"
    assert {name: digest for name, (_, digest) in asked.items()} == {
        name: f"sha256:{digest}" for name, digest in SHA256.items()
    }
    assert all(url.endswith(name) for name, (url, _) in asked.items())


@pytest.mark.parametrize("error", [ConnectionError("no route"), ValueError("SHA256 differs")])
def test_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    import pooch

    def retrieve(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    with pytest.raises(DataError, match=rf"could not be downloaded.*{error}.*put the four files"):
        load_mnist(download=True)


def test_fashion_mnist_from_folder_and_from_the_system(tmp_path: Path) -> None:
    small_set(tmp_path / "data" / "fashion-mnist")
    small_set(tmp_path / "system")
    gone = tmp_path / "gone"
    named = load_fashion_mnist(tmp_path / "data", check_counts=False, system_folder=gone)
    system = load_fashion_mnist(check_counts=False, system_folder=tmp_path / "system")
    assert named.classes[9] == "Ankle boot"
    assert str(tmp_path / "system") in system.source
    with pytest.raises(DataError, match="Fashion-MNIST was not found"):
        load_fashion_mnist(system_folder=gone)


def test_image_set_names_a_label_out_of_range() -> None:
    x, y = np.zeros((3, 2, 2), np.uint8), np.array([0, 1, 0])
    with pytest.raises(DataError, match="tiny, test: label 7 at row 1 lies outside 0 to 1"):
        ImageSet("tiny", x, y, x, np.array([0, 7, 0]), ("a", "b"), "")
    with pytest.raises(DataError, match="tiny, train: 3 images, but labels of shape"):
        ImageSet("tiny", x, y[:2], x, y, ("a", "b"), "")
    with pytest.raises(DataError, match="must be of one size"):
        ImageSet("tiny", x, y, x[:, :1], y, ("a", "b"), "")
    with pytest.raises(DataError, match=r"expected \(rows, height, width\) and uint8"):
        ImageSet("tiny", x / 255, y, x, y, ("a", "b"), "")


@pytest.mark.skipif(not REAL, reason="FEDALT_DATA is unset: no real MNIST to read")
def test_real_mnist() -> None:
    data = load_mnist(REAL)
    assert data.train_x.shape == (60_000, 28, 28)
    assert data.test_x.shape == (10_000, 28, 28)
    assert np.bincount(data.test_y).tolist() == [
        *(980, 1135, 1032, 1010, 982),
        *(892, 958, 1028, 974, 1009),
    ]
    assert data.train_x.mean() / 255 == pytest.approx(0.1307, abs=1e-4)

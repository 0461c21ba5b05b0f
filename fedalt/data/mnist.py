"""MNIST and Fashion-MNIST, and scikit-learn's digits where neither is at hand.

MNIST: LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document
recognition, 1998. Fashion-MNIST: Xiao, Rasul and Vollgraf, arXiv:1708.07747. Both are four
IDX files of the same names, 60 000 training and 10 000 test images of 28 × 28 pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedalt.data.folder import DataFolder, data_folder, not_found
from fedalt.data.idx import read_idx
from fedalt.data.images import ImageSet
from fedalt.errors import ConfigError, DataError, nearest

URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
# Digests of the files at URL. Copies packed by others hold the same images under other
# digests, so a file that is already there is held to its IDX header and counts instead.
SHA256 = {
    "train-images-idx3-ubyte.gz": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
    ),
    "train-labels-idx1-ubyte.gz": (
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
    ),
}
DIGITS = tuple("0123456789")
CLOTHES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
# The second spelling of each is the layout that torchvision leaves behind. The two data
# sets share their file names, so files that lie loose in the folder are not taken for either.
MNIST_FOLDERS = ("mnist", "MNIST/raw")
FASHION_FOLDERS = ("fashion-mnist", "FashionMNIST/raw")
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
IMAGE_SETS = ("mnist", "fashion_mnist")
SHAPES = {"train": (60_000, 28, 28), "t10k": (10_000, 28, 28)}


def load_mnist(
    root: str | Path | None = None, *, download: bool = False, check_counts: bool = True
) -> ImageSet:
    """Load MNIST, or scikit-learn's digits if no folder is named and MNIST is not at hand.

    Looks in ``mnist/`` of the named folder, then of the cache; downloads into the cache only
    with ``download`` and only if no folder is named. ``check_counts`` holds the files to the
    published 60 000 and 10 000 images. Raises :class:`DataError`.
    """
    folder = data_folder(root)
    found = _find_folder(folder.places, MNIST_FOLDERS)
    if found is None and folder.named:
        raise not_found(
            "MNIST",
            folder.places,
            [f"{MNIST_FOLDERS[0]}/{name}" for name in SHA256],
            f"The four files can be had from {URL}.",
        )
    if found is None and download:
        found = _download(folder.cache / MNIST_FOLDERS[0])
    if found is None:
        return load_digits()
    return _read_four(found, "MNIST", DIGITS, check_counts)


def load_fashion_mnist(
    root: str | Path | None = None,
    *,
    check_counts: bool = True,
    system_folder: Path = DEBIAN_FASHION,
) -> ImageSet:
    """Load Fashion-MNIST from ``fashion-mnist/`` of the data folder, or from Debian's package.

    Raises :class:`DataError` if it is in neither.
    """
    folder: DataFolder = data_folder(root)
    found = _find_folder(folder.places, FASHION_FOLDERS) or _find_folder((system_folder,), (".",))
    if found is None:
        raise not_found(
            "Fashion-MNIST",
            (*folder.places, system_folder),
            [f"{FASHION_FOLDERS[0]}/{name}" for name in SHA256],
            "It is Debian's package dataset-fashion-mnist, or to be had from "
            "https://github.com/zalandoresearch/fashion-mnist.",
        )
    return _read_four(found, "Fashion-MNIST", CLOTHES, check_counts)


def load_images(name: str, root: str | Path | None = None, *, download: bool = False) -> ImageSet:
    """Load one of ``IMAGE_SETS`` by name; only MNIST is ever downloaded.

    Raises :class:`ConfigError` for another name, naming the setting ``task.data``, and
    :class:`DataError` as the set's own loader does.
    """
    if name not in IMAGE_SETS:
        raise ConfigError(f"task.data: unknown data set '{name}'{nearest(name, IMAGE_SETS)}")
    return load_mnist(root, download=download) if name == "mnist" else load_fashion_mnist(root)


def load_digits() -> ImageSet:
    """Return scikit-learn's 1 797 digits (UCI optical recognition), enlarged to 28 × 28.

    Each of 8 × 8 pixels becomes a 3 × 3 square, with a border of two; the last 360 images,
    by other hands than most of the rest, are the test set.
    """
    from sklearn.datasets import load_digits as load  # type: ignore[import-untyped]

    bunch = load()
    # Grey levels run from 0 to 16.
    small = (bunch.images * (255 / 16)).astype(np.uint8)
    x = np.pad(small.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2)))
    y = bunch.target.astype(np.int64)
    source = "scikit-learn digits, 8 × 8 enlarged to 28 × 28, in place of MNIST (not found)"
    return ImageSet("digits", x[:-360], y[:-360], x[-360:], y[-360:], DIGITS, source)


def _find_folder(places: tuple[Path, ...], names: tuple[str, ...]) -> Path | None:
    """Return the first folder that holds any of the four files."""
    for place in places:
        for name in names:
            if any(_variant(place / name, file) for file in SHA256):
                return place / name
    return None


def _variant(folder: Path, name: str) -> Path | None:
    """Return the file ``name`` or its unpacked form, whichever is there."""
    for path in (folder / name, folder / name.removesuffix(".gz")):
        if path.is_file():
            return path
    return None


def _read_four(folder: Path, name: str, classes: tuple[str, ...], check_counts: bool) -> ImageSet:
    arrays: dict[str, np.ndarray] = {}
    for file in SHA256:
        path = _variant(folder, file)
        if path is None:
            raise DataError(f"{name}: '{folder / file}' is missing beside the other files; add it")
        split, kind = file.split("-")[:2]
        array = arrays[f"{split}-{kind}"] = read_idx(path)
        expected = SHAPES[split] if kind == "images" else SHAPES[split][:1]
        if check_counts and array.shape != expected:
            raise DataError(f"{name}: '{path}' holds shape {array.shape}, published is {expected}")
    return ImageSet(
        name=name,
        train_x=arrays["train-images"],
        train_y=arrays["train-labels"].astype(np.int64),
        test_x=arrays["t10k-images"],
        test_y=arrays["t10k-labels"].astype(np.int64),
        classes=classes,
        source=f"{name}, IDX files in {folder}",
    )


def _download(folder: Path) -> Path:
    """Fetch MNIST's four files into ``folder``, each held to its digest."""
    import pooch  # type: ignore[import-untyped]

    for name, digest in SHA256.items():
        try:
            pooch.retrieve(URL + name, f"sha256:{digest}", fname=name, path=folder)
        # pooch raises ValueError for a wrong digest; requests' own errors are OSErrors.
        except (OSError, ValueError) as error:
            raise DataError(
                f"MNIST could not be downloaded from {URL + name} ({error}); put the four files "
                f"into '{folder}', or name a folder that holds them in mnist/ with task.root"
            ) from error
    return folder

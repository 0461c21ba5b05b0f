"""Patches: where they lie, how often they show organs, and that each call draws anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nifti_files import AFFINE, write_case
from scipy.stats import binom, chisquare

from fedalt.errors import ConfigError
from fedalt.medical.cached import cached
from fedalt.medical.patches import background_voxel, draw_patches, organ_voxel
from fedalt.medical.prepare import Preparation, Prepared, from_arrays


def volume(shape: tuple[int, ...] = (20, 18, 16), organs: bool = True) -> Prepared:
    """Return a volume whose values count its voxels, with an organ of 64 and one of 8 voxels."""
    image = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    label = np.zeros(shape, np.uint8)
    if organs:
        label[4:8, 4:8, 4:8] = 1
        label[12:14, 12:14, 10:12] = 3
    return from_arrays(image, label, "ct", np.ones(4, bool), np.eye(4))


def interval(share: float, draws: int) -> tuple[float, float]:
    low, high = binom.interval(0.9999, draws, share)
    return float(low), float(high)


@pytest.mark.parametrize("foreground", [0.0, 0.3, 0.5, 1.0])
def test_organs_are_at_the_centre_as_often_as_asked(foreground: float) -> None:
    draws = 2000
    _, labels, _ = draw_patches([volume()], (1, 1, 1), draws, np.random.default_rng(0), foreground)
    low, high = interval(foreground, draws)
    assert low <= (labels > 0).sum() <= high


def test_balanced_draws_small_organs_as_often_as_large_ones() -> None:
    draws = 2000
    for balanced, share in ((False, 8 / 72), (True, 0.5)):
        _, labels, _ = draw_patches(
            [volume()], (1, 1, 1), draws, np.random.default_rng(1), 1.0, balanced=balanced
        )
        low, high = interval(share, draws)
        assert low <= (labels == 3).sum() <= high
        assert set(np.unique(labels)) == {1, 3}


def test_every_voxel_of_a_kind_is_as_likely() -> None:
    rng, small = np.random.default_rng(2), volume((14, 14, 12))
    organ = [organ_voxel(small, rng, balanced=False) for _ in range(3600)]
    counts = np.bincount(np.ravel_multi_index(np.array(organ).T, small.label.shape))
    counts = counts[np.flatnonzero(small.label)]
    assert chisquare(counts).pvalue > 1e-3
    other = np.array([background_voxel(small, rng) for _ in range(4000)])
    assert not small.label[tuple(other.T)].any()
    for axis in range(3):
        expected = (small.label == 0).sum(axis=tuple({0, 1, 2} - {axis}))
        seen = np.bincount(other[:, axis], minlength=len(expected))
        assert chisquare(seen, expected * 4000 / expected.sum()).pvalue > 1e-3


@pytest.mark.parametrize("size", [(6, 5, 4), (6, 5), (20, 18, 16), (1, 18, 3)])
def test_a_patch_is_a_window_of_its_volume(size: tuple[int, ...]) -> None:
    whole = volume()
    images, labels, _ = draw_patches([whole], size, 30, np.random.default_rng(3))
    assert (images.shape, images.dtype) == ((30, *size), np.float32)
    assert (labels.shape, labels.dtype) == ((30, *size), np.uint8)
    wide = (*size, 1)[:3]
    for image, label in zip(images, labels, strict=True):
        # The first value is the place, for values count the voxels.
        start = np.unravel_index(int(image.flat[0]), whole.image.shape)
        part = tuple(slice(s, s + w) for s, w in zip(start, wide, strict=True))
        np.testing.assert_array_equal(image.reshape(wide), whole.image[part])
        np.testing.assert_array_equal(label.reshape(wide), whole.label[part])


def test_an_organs_voxel_is_at_the_centre_of_an_odd_patch() -> None:
    _, labels, _ = draw_patches([volume()], (5, 5, 5), 50, np.random.default_rng(4), 1.0)
    assert (labels[:, 2, 2, 2] > 0).all()
    _, slices, _ = draw_patches([volume()], (5, 5), 50, np.random.default_rng(4), 1.0)
    assert (slices[:, 2, 2] > 0).all()


def test_small_volumes_are_padded_on_both_sides_alike() -> None:
    small = volume((16, 16, 13))
    images, labels, _ = draw_patches([small], (16, 21, 18), 4, np.random.default_rng(5))
    for image, label in zip(images, labels, strict=True):
        np.testing.assert_array_equal(image, np.pad(small.image, ((0, 0), (2, 3), (2, 3))))
        np.testing.assert_array_equal(label, np.pad(small.label, ((0, 0), (2, 3), (2, 3))))


def test_rows_say_which_volume_they_are_from_and_each_call_draws_anew() -> None:
    volumes, rng = [volume(), volume((9, 15, 13)), volume((17, 17, 17))], np.random.default_rng(6)
    images, _, which = draw_patches(volumes, (4, 4, 4), 5, rng)
    assert which.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    again, _, _ = draw_patches(volumes, (4, 4, 4), 5, rng)
    assert not np.array_equal(images, again)
    replay, _, _ = draw_patches(volumes, (4, 4, 4), 5, np.random.default_rng(6))
    np.testing.assert_array_equal(images, replay)


def test_a_volume_without_organs_gives_background_and_one_of_organs_alone_organs() -> None:
    rng = np.random.default_rng(7)
    _, labels, _ = draw_patches([volume(organs=False)], (4, 4), 9, rng, 1.0)
    assert not labels.any()
    full = from_arrays(
        np.ones((4, 4, 4), np.float32), np.ones((4, 4, 4), np.uint8), "mr", np.ones(2, bool), AFFINE
    )
    assert draw_patches([full], (2, 2), 3, rng, 0.0)[1].all()


def test_patches_from_a_memory_map_are_writable_copies(tmp_path: Path) -> None:
    mapped = cached(write_case(tmp_path), Preparation(("liver", "spleen")), tmp_path / "cache")
    images, labels, _ = draw_patches([mapped], (8, 8, 8), 2, np.random.default_rng(8))
    assert isinstance(mapped.image, np.memmap)
    for array in (images, labels):
        assert array.flags.writeable
        assert not isinstance(array, np.memmap)


@pytest.mark.parametrize("size", [(4,), (4, 0), (4, 4, 4, 4)])
def test_sizes_that_cannot_be_are_refused(size: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="patch size"):
        draw_patches([volume()], size, 1, np.random.default_rng(0))
    with pytest.raises(ConfigError, match=r"share of foreground is 1.5"):
        draw_patches([volume()], (4, 4), 1, np.random.default_rng(0), 1.5)

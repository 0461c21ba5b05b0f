"""Augmentation: ranges and probabilities by modality, and labels that follow their images."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import center_of_mass
from scipy.stats import binom, kstest

from fedalt.medical.augment import ANGLE, augment, turned


def test_mr_is_scaled_and_shifted_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    rows = 1500
    images = np.tile(np.array([[1.0, 3.0], [5.0, -2.0]], np.float32), (rows, 1, 1))
    labels = np.tile(np.array([[0, 1], [2, 3]], np.uint8), (rows, 1, 1))
    changed, same = augment(images, labels, ["mr"] * rows, rng)
    np.testing.assert_array_equal(same, labels)
    # Two values of an image give its scale and its shift.
    scale = (changed[:, 0, 1] - changed[:, 0, 0]) / 2 - 1
    shift = changed[:, 0, 0] - 1 - scale
    np.testing.assert_allclose(
        changed, images * (1 + scale)[:, None, None] + shift[:, None, None], atol=1e-5
    )
    low, high = binom.interval(0.9999, rows, 0.5)
    for change in (scale, shift):
        moved = change[np.abs(change) > 1e-5]
        assert low <= moved.size <= high
        assert kstest(moved, "uniform", args=(-0.1, 0.2)).pvalue > 1e-3


def test_ct_is_shifted_and_turned_each_half_of_the_time() -> None:
    rng = np.random.default_rng(1)
    rows = 400
    ramp = np.linspace(0, 1, 12, dtype=np.float32)
    images = np.tile(ramp[:, None] * np.ones((1, 12), np.float32), (rows, 1, 1))
    labels = (images > 0.5).astype(np.uint8)
    changed, _ = augment(images, labels, ["ct"] * rows, rng)
    low, high = binom.interval(0.9999, rows, 0.5)
    turns = np.abs(np.diff(changed - images, axis=1)).max(axis=(1, 2)) > 1e-5
    assert low <= turns.sum() <= high
    shifts = (changed - images)[~turns, 0, 0]
    assert np.abs(shifts).max() <= 0.1
    moved = np.abs(shifts) > 1e-6
    low, high = binom.interval(0.9999, len(shifts), 0.5)
    assert low <= moved.sum() <= high


@pytest.mark.parametrize("shape", [(40, 36), (40, 36, 20)])
def test_a_turn_is_a_rotation_and_a_scale_about_the_centre(shape: tuple[int, ...]) -> None:
    middle = (np.array(shape) - 1) / 2
    offset = np.array([9.0, 4.0, -3.0][: len(shape)])
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    blob = np.exp(-((grid - middle - offset) ** 2).sum(axis=-1) / 8).astype(np.float32)
    scale = np.array([1.1, 0.9, 1.05][: len(shape)])
    turn = np.eye(len(shape))
    turn[:2, :2] = [
        [math.cos(ANGLE), -math.sin(ANGLE)],
        [math.sin(ANGLE), math.cos(ANGLE)],
    ]
    result = turned(blob, ANGLE, scale, order=1)
    expected = middle + turn @ (scale * offset)
    np.testing.assert_allclose(center_of_mass(result), expected, atol=0.1)


def test_labels_follow_their_images() -> None:
    rng = np.random.default_rng(2)
    labels = np.zeros((12, 24, 24, 10), np.uint8)
    labels[:, 5:12, 8:20, 2:8] = 2
    images = labels.astype(np.float32)
    changed, followed = augment(images, labels, ["ct"] * 12, rng)
    assert followed.dtype == np.uint8
    assert set(np.unique(followed)) == {0, 2}
    assert not np.array_equal(followed, labels)
    for image, label in zip(changed, followed, strict=True):
        level = image - image.min()
        assert ((level > 1) != (label == 2)).mean() < 0.01


def test_given_arrays_stay_as_they_are_and_the_seed_decides() -> None:
    images = np.random.default_rng(3).normal(size=(6, 8, 8)).astype(np.float32)
    labels = (images > 0).astype(np.uint8)
    kept = images.copy(), labels.copy()
    names = ["ct", "mr"] * 3
    one, two, other = (augment(images, labels, names, np.random.default_rng(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(images, kept[0])
    np.testing.assert_array_equal(labels, kept[1])
    np.testing.assert_array_equal(one[0], two[0])
    assert one[0].dtype == np.float32
    assert not np.array_equal(one[0], other[0])

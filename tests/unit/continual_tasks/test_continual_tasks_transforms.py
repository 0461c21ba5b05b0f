"""Permutations and rotations: one map a task, the same wherever a row comes from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from fedalt.errors import ConfigError
from fedalt.scenarios.continual_power_law.rows import pixels
from fedalt.scenarios.continual_power_law.transforms import (
    check_angles,
    even_angles,
    permutations,
    rotations,
)
from fedalt.seeds import Seeds


def test_permutations_are_distinct_complete_and_of_the_seed() -> None:
    made = permutations(5, 196, True, Seeds(3))
    again, other = permutations(5, 196, True, Seeds(3)), permutations(5, 196, True, Seeds(4))
    ramp = torch.arange(196.0)[None]
    shown = [made(ramp, task)[0] for task in range(5)]
    assert torch.equal(shown[0], ramp[0])
    for task in range(5):
        assert torch.equal(shown[task].sort().values, ramp[0])
        assert torch.equal(shown[task], again(ramp, task)[0])
        # Maps made in a loop that all read its last variable would be one and the same.
        assert all(not torch.equal(shown[task], shown[before]) for before in range(task))
        assert task == 0 or not torch.equal(shown[task], other(ramp, task)[0])


def test_more_tasks_leave_the_first_permutations_as_they_are() -> None:
    few, many = permutations(2, 50, False, Seeds(0)), permutations(6, 50, False, Seeds(0))
    assert all(torch.equal(few.orders[task], many.orders[task]) for task in range(2))
    assert not torch.equal(few.orders[0], torch.arange(50))


@pytest.mark.parametrize("side", [14, 28])
def test_rotations_are_those_of_scipy(side: int) -> None:
    images = np.random.default_rng(0).random((7, side, side)).astype(np.float32)
    angles = [0.0, 20.0, 90.0, 135.5, -40.0]
    turn = rotations(angles, side)
    for task, angle in enumerate(angles):
        wanted = [ndimage.rotate(image, angle, reshape=False, order=1) for image in images]
        found = turn(torch.from_numpy(images.reshape(7, -1)), task)
        assert found.dtype == torch.float32
        assert float(turn(torch.ones(1, side * side), task).max()) == pytest.approx(1.0)
        assert float(turn(torch.ones(1, side * side), task).max()) <= 1.0
        np.testing.assert_allclose(found.numpy(), np.stack(wanted).reshape(7, -1), atol=1e-5)


def test_a_quarter_turn_goes_counter_clockwise_and_a_half_one_mirrors_both_axes() -> None:
    image = np.random.default_rng(1).random((14, 14)).astype(np.float32)
    turn = rotations([90.0, 180.0], 14)
    flat = torch.from_numpy(image.reshape(1, -1))
    np.testing.assert_allclose(turn(flat, 0).reshape(14, 14), np.rot90(image), atol=1e-5)
    np.testing.assert_allclose(turn(flat, 1).reshape(14, 14), image[::-1, ::-1], atol=1e-5)


def test_angles_spread_over_both_ends_and_none_comes_twice() -> None:
    assert even_angles(6, 180.0) == pytest.approx([0, 36, 72, 108, 144, 180])
    assert even_angles(1, 180.0) == [0.0]
    with pytest.raises(ConfigError, match="tasks 0 and 4 turn by 0° and 360°"):
        even_angles(5, 360.0)
    with pytest.raises(ConfigError, match="tasks 0 and 1"):
        check_angles([-90.0, 270.0])
    with pytest.raises(ConfigError, match="the same"):
        even_angles(3, 0.0)


def test_pixels_are_pooled_by_the_mean_kept_or_padded() -> None:
    images = np.random.default_rng(2).integers(0, 256, (3, 28, 28), np.uint8)
    small = pixels(images, 14).reshape(3, 14, 14)
    for row, column in [(0, 0), (5, 13), (13, 2)]:
        square = images[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        mean = square.reshape(3, 4).mean(1)
        assert (np.abs(small[:, row, column] - mean) <= 0.5).all()
    assert np.array_equal(pixels(images, 28), images.reshape(3, 784))
    padded = pixels(images, 32).reshape(3, 32, 32)
    assert np.array_equal(padded[:, 2:-2, 2:-2], images)
    assert padded.sum() == images.sum()
    assert all(pixels(images, side).dtype == np.uint8 for side in (14, 28, 32))

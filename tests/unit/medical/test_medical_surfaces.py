"""Surface distances against a loop over all pairs of surface voxels, and against monai."""

import itertools
import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

from fedalt.errors import ConfigError, DataError
from fedalt.medical.organ_scores import judge
from fedalt.medical.surfaces import surface_distances, surface_voxels

SHAPES = {2: ((9, 11), (1.5, 0.7)), 3: ((6, 7, 5), (1.5, 0.7, 3.0))}


def _surface(mask: np.ndarray) -> list[tuple[int, ...]]:
    """Voxels of a mask with a face neighbour that is outside it or the image."""
    found = []
    for place in itertools.product(*map(range, mask.shape)):
        neighbours = [
            tuple(p + step * (axis == a) for a, p in enumerate(place))
            for axis in range(mask.ndim)
            for step in (-1, 1)
        ]
        inside = [
            all(0 <= p < side for p, side in zip(n, mask.shape, strict=True)) and mask[n]
            for n in neighbours
        ]
        if mask[place] and not all(inside):
            found.append(place)
    return found


def _nearest(
    here: list[tuple[int, ...]], there: list[tuple[int, ...]], mm: tuple[float, ...]
) -> list[float]:
    return [min(math.dist(np.multiply(a, mm), np.multiply(b, mm)) for b in there) for a in here]


def _pair(dimensions: int, seed: int) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    shape, spacing = SHAPES[dimensions]
    rng = np.random.default_rng(seed)
    return rng.random(shape) < 0.7, rng.random(shape) < 0.3, spacing


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_distances_are_those_of_all_pairs(dimensions: int, seed: int) -> None:
    prediction, truth, spacing = _pair(dimensions, seed)
    surfaces = _surface(prediction), _surface(truth)
    assert sorted(map(tuple, surface_voxels(prediction).tolist())) == surfaces[0]
    one, two = _nearest(*surfaces, spacing), _nearest(*surfaces[::-1], spacing)
    found = surface_distances(prediction, truth, spacing)
    assert found.hd95 == pytest.approx(max(np.percentile(one, 95), np.percentile(two, 95)))
    assert found.assd == pytest.approx((sum(one) + sum(two)) / (len(one) + len(two)))
    assert surface_distances(truth, prediction, spacing) == pytest.approx(found)


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # monai's own call
@pytest.mark.parametrize("dimensions", [2, 3])
def test_distances_are_those_of_monai(dimensions: int) -> None:
    prediction, truth, spacing = _pair(dimensions, 11)
    tensors = [torch.as_tensor(mask)[None, None].float() for mask in (prediction, truth)]
    hd95 = compute_hausdorff_distance(
        *tensors, include_background=True, percentile=95, spacing=spacing
    )
    assd = compute_average_surface_distance(
        *tensors, include_background=True, symmetric=True, spacing=spacing
    )
    found = surface_distances(prediction, truth, spacing)
    assert found == pytest.approx((float(hd95), float(assd)), rel=1e-5)


def test_a_box_moved_by_a_voxel_is_a_spacing_away() -> None:
    truth = np.zeros((12, 12, 12), bool)
    truth[3:8, 3:8, 3:8] = True
    for axis, spacing in itertools.product(range(3), [(2.0, 1.0, 5.0)]):
        moved = np.roll(truth, 1, axis)
        assert surface_distances(moved, truth, spacing).hd95 == spacing[axis]
    assert surface_distances(truth, truth, (1, 1, 1)) == (0.0, 0.0)


@pytest.mark.parametrize(("predicted", "true"), [(0, 0), (1, 0), (0, 1)])
def test_there_is_no_distance_to_an_empty_mask(predicted: int, true: int) -> None:
    masks = np.full((4, 4), bool(predicted)), np.full((4, 4), bool(true))
    assert all(math.isnan(value) for value in surface_distances(*masks, (1, 1)))


def test_a_case_has_each_organ_s_distances_and_counts_what_has_none() -> None:
    rng = np.random.default_rng(5)
    prediction, truth = rng.integers(0, 5, (2, 9, 8, 7))
    prediction[prediction == 2] = 0
    truth[truth == 3] = 0
    organs, spacing = ("liver", "spleen", "aorta", "stomach", "pancreas"), (1.5, 1.5, 2.0)
    scores = judge(prediction, truth, organs, spacing)
    for i in (0, 3):
        expected = surface_distances(prediction == i + 1, truth == i + 1, spacing)
        assert (scores.hd95[i], scores.assd[i]) == pytest.approx(expected)
    assert np.isfinite(scores.hd95).tolist() == [True, False, False, True, False]
    assert scores.missed.tolist() == [False, True, False, False, False]
    assert scores.false_alarms.tolist() == [False, False, True, False, False]
    assert scores.dice[1:3].tolist() == [0, 0] and math.isnan(scores.dice[4])
    partly = judge(prediction, truth, organs, spacing, known=[1, 0, 0, 1, 1, 1])
    assert math.isnan(partly.dice[0]) and math.isnan(partly.hd95[0])
    assert not partly.missed.any() and partly.hd95[3] == scores.hd95[3]


def test_what_does_not_fit_is_refused() -> None:
    mask = np.ones((3, 4), bool)
    with pytest.raises(DataError, match="one grid"):
        surface_distances(mask, mask.T, (1, 1))
    for spacing in [(1,), (1, 1, 1), (1, 0), (1, -1), (1, math.nan)]:
        with pytest.raises(ConfigError, match="2 lengths in mm"):
            surface_distances(mask, mask, spacing)
    with pytest.raises(ConfigError, match="spacing"):
        judge(mask.astype(int), mask.astype(int), ["liver"], (1, 1, 1), surfaces=False)

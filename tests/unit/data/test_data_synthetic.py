"""The synthetic set: told-apart subspaces, unlike sites, and one seed, one set."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fedalt.data import HEAVY_TAILED, AnomalySet, Shape, sorted_by, synthetic_anomalies
from fedalt.errors import DataError
from fedalt.seeds import Seeds


def make(seed: int) -> AnomalySet:
    return synthetic_anomalies(Seeds(seed).at("data").numpy())


def standardised(data: AnomalySet) -> tuple[np.ndarray, np.ndarray]:
    mean, std = data.train_x.mean(0), data.train_x.std(0)
    return (data.train_x - mean) / std, (data.test_x - mean) / std


def leading(x: np.ndarray, k: int = 6) -> np.ndarray:
    return np.linalg.eigh(x.T @ x / len(x))[1][:, -k:]


def residual(basis: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.sum((x - (x @ basis) @ basis.T) ** 2, axis=1)


def test_sizes_families_and_names() -> None:
    data = make(0)
    assert data.train_x.shape == (20_000, 34)
    assert data.test_x.shape == (6_000, 34)
    assert data.features[0] == HEAVY_TAILED
    assert int(data.test_attack.sum()) == 1_800
    assert set(data.test_family) == {"normal", *(f"attack-{i}" for i in range(4))}


def test_one_seed_one_set() -> None:
    one, two, other = make(3), make(3), make(4)
    np.testing.assert_array_equal(one.test_x, two.test_x)
    np.testing.assert_array_equal(one.test_family, two.test_family)
    assert not np.array_equal(one.train_x, other.train_x)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_central_subspace_is_told_from_a_random_one(seed: int) -> None:
    data = make(seed)
    train, test = standardised(data)
    central = roc_auc_score(data.test_attack, residual(leading(train), test))
    assert 0.87 < central < 0.95
    rng = np.random.default_rng(seed)
    for _ in range(10):
        basis, _ = np.linalg.qr(rng.standard_normal((34, 6)))
        assert roc_auc_score(data.test_attack, residual(basis, test)) < 0.6
    assert roc_auc_score(data.test_attack, np.sum(test**2, axis=1)) < 0.6


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sites_sorted_on_the_heavy_tailed_column_are_unlike(seed: int) -> None:
    train, _ = standardised(make(seed))
    central = residual(leading(train), train).mean()

    def alone(parts: list[np.ndarray]) -> float:
        return float(np.mean([residual(leading(train[p]), train).mean() for p in parts])) / central

    assert 1.2 < alone(sorted_by(train[:, 0], 20)) < 1.4
    shuffled = np.random.default_rng(seed).permutation(len(train))
    assert alone(np.array_split(shuffled, 20)) < 1.03


def test_eigengap_after_the_sixth_factor() -> None:
    for seed in range(3):
        train, _ = standardised(make(seed))
        spectrum = np.linalg.eigvalsh(train.T @ train / len(train))[::-1]
        assert spectrum[5] / spectrum[6] > 1.6


def test_shape_is_a_parameter() -> None:
    shape = Shape(features=10, factors=2, families=2)
    rng = np.random.default_rng(0)
    data = synthetic_anomalies(rng, n_train=50, n_test=40, attack_fraction=0.5, shape=shape)
    assert data.train_x.shape == (50, 10)
    assert int(data.test_attack.sum()) == 20


@pytest.mark.parametrize("sizes", [{"n_train": 0}, {"n_test": 1}, {"attack_fraction": 1.0}])
def test_sizes_that_leave_a_split_empty(sizes: dict[str, float]) -> None:
    with pytest.raises(DataError, match=r"synthetic set: n_train = .* enlarge them"):
        synthetic_anomalies(np.random.default_rng(0), **sizes)  # type: ignore[arg-type]

"""The task of federated PCA: partitions, scaler, reference subspace, settings."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from fedalt.data import check_partition
from fedalt.errors import ConfigError, DataError
from fedalt.scenarios.federated_pca import task as module
from fedalt.scenarios.federated_pca.task import PARTITIONS, FederatedPCA
from fedalt.seeds import Seeds


def small(**settings: object) -> FederatedPCA:
    return FederatedPCA(
        **{"data": "synthetic", "rank": 6, "rows": 2000, **settings}  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def task() -> FederatedPCA:
    return small()


@pytest.mark.parametrize("partition", PARTITIONS)
@pytest.mark.parametrize("clients", [1, 7, 50])
def test_sites_hold_every_record_once(partition: str, clients: int) -> None:
    made = small(partition=partition, clients=clients)
    check_partition(made.parts, 2000)
    rows = [made.site_data(site.index) for site in made.sites]
    assert sum(len(r.train) + len(r.holdout) for r in rows) == 2000
    assert [site.size for site in made.sites] == [len(r.train) for r in rows]


def test_sorted_sites_follow_the_feature(task: FederatedPCA) -> None:
    ends = [(task.values[part].min(), task.values[part].max()) for part in task.parts]
    assert all(high <= low for (_, high), (low, _) in pairwise(ends))


@pytest.mark.parametrize("holdout", [0.0, 0.1, 0.5])
def test_the_share_held_out(holdout: float) -> None:
    made = small(holdout=holdout)
    for site in made.sites:
        rows = made.site_data(site.index)
        assert len(rows.holdout) == round(holdout * (len(rows.holdout) + len(rows.train)))


def test_a_site_keeps_a_record_to_learn_from() -> None:
    made = small(rows=50, clients=50, holdout=0.9)
    assert all(site.size == 1 for site in made.sites)


def test_the_scaler_is_that_of_scikit_learn(task: FederatedPCA) -> None:
    rows = np.concatenate([task.site_data(site.index).train for site in task.sites])
    theirs = StandardScaler().fit(rows)
    np.testing.assert_allclose(task.scaler[0], theirs.mean_, rtol=1e-10)
    np.testing.assert_allclose(task.scaler[1], theirs.scale_, rtol=1e-10)


def test_constant_columns_are_divided_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    made = module.synthetic_anomalies

    def with_constants(rng: np.random.Generator) -> module.AnomalySet:
        records = made(rng, n_train=500, n_test=200)
        records.train_x[:, 3], records.train_x[:, 4] = 0.0, 1e7 / 3
        return records

    monkeypatch.setattr(module, "synthetic_anomalies", with_constants)
    mean, std = FederatedPCA(data="synthetic", rank=6).scaler
    assert std[3] == std[4] == 1.0
    assert mean[4] == pytest.approx(1e7 / 3)


def test_the_central_subspace_is_the_best(task: FederatedPCA) -> None:
    best = task.central_subspace
    np.testing.assert_allclose(best.T @ best, np.eye(6), atol=1e-12)
    assert task.central_residual == pytest.approx(task.spectrum[6:].sum(), rel=1e-9)
    assert task.gap == pytest.approx((task.spectrum[5] - task.spectrum[6]) / task.spectrum[0])
    start = task.initial_arrays(Seeds(0))["subspace"]
    assert task.residual(start) > task.central_residual
    assert task.residual(best @ np.triu(np.ones((6, 6)))) == pytest.approx(task.central_residual)


def test_measures_that_need_a_threshold_wait_for_one(task: FederatedPCA) -> None:
    arrays = task.initial_arrays(Seeds(0))
    before = task.evaluate(arrays)
    after = task.evaluate({**arrays, "threshold": np.array([5.0])})
    assert set(after) - set(before) == {"f1", "precision", "recall", "fpr"}


def test_one_seed_is_one_task() -> None:
    one, same, other = small(seed=4), small(seed=4), small(seed=5)
    for site in one.sites:
        rows, again = one.site_data(site.index), same.site_data(site.index)
        np.testing.assert_array_equal(rows.train, again.train)
        np.testing.assert_array_equal(rows.holdout, again.holdout)
    assert not np.array_equal(one.records.train_x, other.records.train_x)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"data": "nsl-kdd"}, "nsl_kdd"),
        ({"partition": "sort"}, "sorted"),
        ({"holdout": 1.0}, "holdout"),
        ({"rank": 35}, "35 dimensions"),
        ({"rank": 0}, "0 dimensions"),
        ({"rank": 34}, "no spread left"),
        ({"rows": 0}, "rows=0"),
        ({"rows": 10**6}, "1 to 20000"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        small(**settings)


def test_an_unknown_feature_and_too_many_clients() -> None:
    with pytest.raises(DataError, match="heavy"):
        small(feature="heavi")
    with pytest.raises(DataError):
        small(rows=10, clients=11)


def test_data_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("FEDALT_DATA", raising=False)
    made = FederatedPCA(rank=3)
    assert made.records.name == "Shuttle"
    assert "NSL-KDD was not found" in made.fallback
    with pytest.raises(DataError):
        FederatedPCA(rank=3, data="nsl_kdd")
    monkeypatch.setenv("FEDALT_DATA", str(tmp_path))
    with pytest.raises(DataError):
        FederatedPCA(rank=3)

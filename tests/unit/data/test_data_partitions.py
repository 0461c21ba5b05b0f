"""Partitions: every row exactly once, no empty client, one seed one partition."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedalt.data import (
    PARTITIONS,
    check_partition,
    dirichlet,
    dirichlet_sizes,
    iid,
    partition,
    pathological,
    sorted_by,
)
from fedalt.errors import ConfigError, DataError

Make = Callable[[np.ndarray, int, np.random.Generator], list[np.ndarray]]
MAKERS: dict[str, Make] = {
    "iid": lambda y, c, rng: iid(len(y), c, rng),
    "dirichlet": lambda y, c, rng: dirichlet(y, c, 0.1, rng),
    "dirichlet_large": lambda y, c, rng: dirichlet(y, c, 100.0, rng),
    "dirichlet_sizes": lambda y, c, rng: dirichlet_sizes(len(y), c, 0.1, rng),
    "pathological": lambda y, c, rng: pathological(y, c, 1, rng),
    "sorted_by": lambda y, c, rng: sorted_by(y, c),
}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=40, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_every_row_once_and_the_same_again(name: str, data: st.DataObject, seed: int) -> None:
    labels = np.array(data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=60)))
    clients = data.draw(st.integers(1, len(labels)))
    parts = MAKERS[name](labels, clients, rng(seed))
    assert len(parts) == clients
    check_partition(parts, len(labels))
    assert all(np.all(np.diff(rows) > 0) for rows in parts)
    again = MAKERS[name](labels, clients, rng(seed))
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


@pytest.mark.parametrize("name", MAKERS)
def test_more_clients_than_rows(name: str) -> None:
    with pytest.raises(DataError, match="4 clients cannot be made of 3 rows; ask for fewer"):
        MAKERS[name](np.arange(3), 4, rng())
    with pytest.raises(ConfigError, match="clients is 0, but must be at least 1"):
        MAKERS[name](np.arange(3), 0, rng())


@pytest.mark.parametrize("name", [n for n in MAKERS if n != "sorted_by"])
def test_another_seed_is_another_partition(name: str) -> None:
    labels = np.arange(500) % 10
    one, two = (MAKERS[name](labels, 5, rng(seed)) for seed in (0, 1))
    assert any(not np.array_equal(a, b) for a, b in zip(one, two, strict=True))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(1, 5), st.floats(1e-3, 1e3), st.integers(0, 99))
def test_min_size_holds(clients: int, min_size: int, alpha: float, seed: int) -> None:
    labels = np.arange(clients * min_size + 7) % 3
    for parts in (
        dirichlet(labels, clients, alpha, rng(seed), min_size),
        dirichlet_sizes(len(labels), clients, alpha, rng(seed), min_size),
    ):
        check_partition(parts, len(labels))
        assert min(map(len, parts)) >= min_size


def test_min_size_that_cannot_be_had() -> None:
    with pytest.raises(DataError, match="3 clients × 4 rows or shards cannot be made of 10 rows"):
        dirichlet(np.zeros(10), 3, 1.0, rng(), min_size=4)
    with pytest.raises(ConfigError, match="min_size is 0"):
        dirichlet_sizes(10, 3, 1.0, rng(), min_size=0)


def test_alpha_sets_the_skew() -> None:
    labels = np.arange(20_000) % 10

    def largest_share(alpha: float) -> float:
        parts = dirichlet(labels, 20, alpha, rng())
        return float(np.mean([np.bincount(labels[p], minlength=10).max() / len(p) for p in parts]))

    assert largest_share(0.05) > 0.6
    assert largest_share(1000.0) < 0.15


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
def test_alpha_must_be_positive_and_finite(alpha: float) -> None:
    for make in (
        lambda: dirichlet(np.zeros(9), 3, alpha, rng()),
        lambda: dirichlet_sizes(9, 3, alpha, rng()),
    ):
        with pytest.raises(ConfigError, match=r"alpha is .* must be positive and finite"):
            make()


def test_pathological_clients_see_few_classes() -> None:
    labels = np.arange(1000) % 10
    parts = pathological(labels, 50, 2, rng())
    assert all(len(rows) == 20 for rows in parts)
    assert max(len(np.unique(labels[rows])) for rows in parts) <= 2
    with pytest.raises(ConfigError, match="shards_per_client is 0"):
        pathological(labels, 5, 0, rng())


def test_sorted_by_orders_clients_and_keeps_ties_in_row_order() -> None:
    values = np.array([3.0, 1.0, 2.0, 1.0, 1.0, 2.0])
    assert [p.tolist() for p in sorted_by(values, 3)] == [[1, 3], [2, 4], [0, 5]]
    with pytest.raises(DataError, match="row 1 is nan"):
        sorted_by(np.array([0.0, np.nan]), 1)
    with pytest.raises(DataError, match=r"values have shape \(2, 2\)"):
        sorted_by(np.zeros((2, 2)), 1)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([[0, 1], [], [2]], "client 1 of 3 is empty"),
        ([[0, 1], [1, 2]], "row 1 is held 2 times"),
        ([[0], [2]], "row 1 is held 0 times"),
        ([[0, 1], [2, 3]], "names row 3, but rows run from 0 to 2"),
        ([], "row 0 is held 0 times"),
    ],
)
def test_bad_partitions_are_named(parts: list[list[int]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_partition([np.array(p, dtype=np.int64) for p in parts], 3)


@pytest.mark.parametrize("name", PARTITIONS)
def test_every_rule_by_name(name: str) -> None:
    labels = np.arange(60) % 6
    options = dict.fromkeys(PARTITIONS[name].required, 2)
    parts = partition(name, 6, rng(), labels=labels, values=labels / 2, **options)
    check_partition(parts, 60)


def test_by_name_is_the_function() -> None:
    labels = np.arange(60) % 6
    by_name = partition("dirichlet", 4, rng(5), labels=labels, alpha=0.5, min_size=3)
    for a, b in zip(by_name, dirichlet(labels, 4, 0.5, rng(5), 3), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(partition("iid", 4, rng(), rows=9)) == 4


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dirichlett", {}, r"unknown partition 'dirichlett' \(did you mean 'dirichlet'"),
        ("dirichlet", {"alpa": 1.0}, r"unknown option 'alpa' \(did you mean 'alpha'"),
        ("iid", {"alpha": 1.0}, r"'iid': unknown option 'alpha' \(it takes none\)"),
        ("dirichlet", {}, "option 'alpha' is missing"),
        ("dirichlet", {"alpha": "small"}, "alpha is 'small', expected a number"),
        ("pathological", {"shards_per_client": 1.5}, "is 1.5, expected a whole number"),
        ("sorted_by", {}, "divides by values, which this data has not"),
    ],
)
def test_configuration_errors(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        partition(name, 3, rng(), labels=np.arange(9) % 3, **options)

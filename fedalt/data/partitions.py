"""Partitions: which client holds which rows.

Every function returns one array of ascending row numbers for each client; together they
hold every row of 0 … n−1 exactly once, and no client is empty. Randomness is passed in, so
one seed gives one partition on any engine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedalt.errors import ConfigError, DataError

Parts = list[np.ndarray]


def iid(n: int, clients: int, rng: np.random.Generator) -> Parts:
    """Deal shuffled rows out in equal shares (they differ by at most one row)."""
    _check_counts(n, clients)
    return _sorted(np.array_split(rng.permutation(n), clients))


def dirichlet(
    labels: np.ndarray, clients: int, alpha: float, rng: np.random.Generator, min_size: int = 1
) -> Parts:
    """Label skew: each class is shared out by proportions drawn from Dirichlet(alpha).

    Hsu, Qi and Brown, arXiv:1909.06335, as commonly run: one draw for each class. A small
    ``alpha`` gives each class to few clients. A client left with fewer than ``min_size``
    rows takes random rows from the currently largest one.
    """
    labels = _one_dimensional("labels", labels)
    _check_counts(len(labels), clients, min_size)
    _check_alpha(alpha)
    held: list[list[int]] = [[] for _ in range(clients)]
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        ends = np.cumsum(_proportions(alpha, clients, rng))[:-1] * len(rows)
        cuts = np.clip(np.rint(ends), 0, len(rows)).astype(np.int64)
        for client, share in enumerate(np.split(rows, cuts)):
            held[client].extend(share.tolist())
    _top_up(held, min_size, rng)
    return _sorted([np.array(rows, dtype=np.int64) for rows in held])


def dirichlet_sizes(
    n: int, clients: int, alpha: float, rng: np.random.Generator, min_size: int = 1
) -> Parts:
    """Size skew: random rows, with shares drawn from Dirichlet(alpha) above ``min_size``."""
    _check_counts(n, clients, min_size)
    _check_alpha(alpha)
    spare = n - clients * min_size
    exact = _proportions(alpha, clients, rng) * spare
    sizes = np.floor(exact).astype(np.int64)
    # Largest remainders get the rows that rounding down left over.
    left = spare - int(sizes.sum())
    sizes[np.argsort(sizes - exact, kind="stable")[:left]] += 1
    return _sorted(np.split(rng.permutation(n), np.cumsum(sizes + min_size)[:-1]))


def pathological(
    labels: np.ndarray, clients: int, shards_per_client: int, rng: np.random.Generator
) -> Parts:
    """Few classes for each client: sort by label, cut into shards, deal the shards out.

    McMahan, Moore, Ramage, Hampson and Agüera y Arcas, AISTATS 2017 (there: 100 clients,
    2 shards each). Rows of one label are shuffled first.
    """
    labels = _one_dimensional("labels", labels)
    if shards_per_client < 1:
        raise ConfigError(f"shards_per_client is {shards_per_client}, but must be at least 1")
    _check_counts(len(labels), clients, shards_per_client)
    shuffled = rng.permutation(len(labels))
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    shards = np.array_split(order, clients * shards_per_client)
    dealt = rng.permutation(len(shards)).reshape(clients, shards_per_client)
    return _sorted([np.concatenate([shards[shard] for shard in hand]) for hand in dealt])


def sorted_by(values: np.ndarray, clients: int) -> Parts:
    """Feature skew: sort by a feature and cut into equal shares; ties keep row order."""
    values = _one_dimensional("values", values)
    _check_counts(len(values), clients)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise DataError(f"cannot sort by values: row {row} is {values[row]}; it must be finite")
    return _sorted(np.array_split(np.argsort(values, kind="stable"), clients))


def check_partition(parts: Sequence[np.ndarray], n: int) -> None:
    """Raise :class:`DataError` unless ``parts`` hold each of ``n`` rows once, and none is empty."""
    empty = [client for client, rows in enumerate(parts) if len(rows) == 0]
    if empty:
        raise DataError(
            f"client {empty[0]} of {len(parts)} is empty ({len(empty)} in all); use fewer"
        )
    rows = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
    if len(rows) and (rows.min() < 0 or rows.max() >= n):
        outside = rows[(rows < 0) | (rows >= n)][0]
        raise DataError(f"the partition names row {outside}, but rows run from 0 to {n - 1}")
    odd = np.flatnonzero(np.bincount(rows, minlength=n) != 1)
    if len(odd):
        times = int(np.count_nonzero(rows == odd[0]))
        raise DataError(f"row {odd[0]} is held {times} times, expected exactly once")


def _check_counts(n: int, clients: int, min_size: int = 1) -> None:
    if clients < 1:
        raise ConfigError(f"clients is {clients}, but must be at least 1")
    if min_size < 1:
        raise ConfigError(f"min_size is {min_size}, but must be at least 1: no client may be empty")
    if clients * min_size > n:
        need = f"{clients} clients" + (f" × {min_size} rows or shards" if min_size > 1 else "")
        raise DataError(
            f"{need} cannot be made of {n} rows; ask for fewer clients or give more data"
        )


def _check_alpha(alpha: float) -> None:
    if not (np.isfinite(alpha) and alpha > 0):
        raise ConfigError(f"alpha is {alpha}, but must be positive and finite")


def _one_dimensional(name: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 1:
        raise DataError(f"{name} have shape {values.shape}, expected one value for each row")
    return values


def _proportions(alpha: float, clients: int, rng: np.random.Generator) -> np.ndarray:
    drawn = rng.dirichlet(np.full(clients, alpha))
    if not (np.isfinite(drawn).all() and np.isclose(drawn.sum(), 1.0)):
        raise ConfigError(f"alpha = {alpha} is too extreme to draw {clients} proportions from")
    return drawn


def _top_up(held: list[list[int]], min_size: int, rng: np.random.Generator) -> None:
    """Move random rows from the largest client to those with fewer than ``min_size``."""
    sizes = np.array([len(rows) for rows in held])
    for client in np.flatnonzero(sizes < min_size):
        while sizes[client] < min_size:
            donor = int(np.argmax(sizes))
            row = held[donor].pop(int(rng.integers(sizes[donor])))
            held[client].append(row)
            sizes[donor] -= 1
            sizes[client] += 1


def _sorted(parts: Sequence[np.ndarray]) -> Parts:
    return [np.sort(rows) for rows in parts]

"""The rows of every client: those it trains on, and those held out to judge it by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedalt.data import ImageSet, partition
from fedalt.errors import ConfigError, DataError
from fedalt.seeds import Seeds

SIDES = (14, 28, 32)


@dataclass(frozen=True)
class ClientRows:
    """One array of row numbers of the training set for each client, ascending; all disjoint."""

    train: tuple[np.ndarray, ...]
    held: tuple[np.ndarray, ...]


def client_rows(
    labels: np.ndarray,
    clients: int,
    rule: tuple[str, Mapping[str, Any]],
    rows: int | None,
    held_out: float,
    seeds: Seeds,
) -> ClientRows:
    """Partition rows among clients, hold out a share of each part, and cap the rest at ``rows``."""
    return hold_out(parts(labels, clients, rule, seeds), rows, held_out, seeds)


def parts(
    labels: np.ndarray, clients: int, rule: tuple[str, Mapping[str, Any]], seeds: Seeds
) -> list[np.ndarray]:
    """Partition rows among clients by a rule's name and options."""
    name, options = rule
    return partition(name, clients, seeds.at("partition").numpy(), labels=labels, **options)


def hold_out(
    whole: Sequence[np.ndarray], rows: int | None, held_out: float, seeds: Seeds
) -> ClientRows:
    """Hold out a share of each client's rows, and cap those it trains on at ``rows``.

    Where the cap leaves rows out, the share is of those that are kept, so that judging does not
    cost more than training; which rows are trained on does not depend on it. A client keeps at
    least one row to train on; with fewer than ``rows`` it trains on all. With any share above 0
    it holds out at least one if it has two: without it a client of four rows could not be
    judged, and one such client ends a round that wants all of them.
    """
    train, held = [], []
    for client, part in enumerate(whole):
        shuffled = seeds.at("held", client).numpy().permutation(part)
        apart = min(max(round(held_out * len(part)), held_out > 0), max(0, len(part) - 1))
        train.append(np.sort(shuffled[apart:][:rows]))
        capped = len(train[-1]) < len(part) - apart
        judged = held_share(len(train[-1]), held_out) if capped else apart
        held.append(np.sort(shuffled[: min(apart, judged)]))
    return ClientRows(tuple(train), tuple(held))


def held_share(train: int, share: float) -> int:
    """Return how many rows go with ``train`` others so that they are a share in [0, 1) of both."""
    return max(round(train * share / (1.0 - share)), share > 0)


def picked(own: np.ndarray, rows: np.ndarray, site: int, task: int, name: str) -> np.ndarray:
    """Return ``own[rows]``; raises :class:`DataError` for rows that the site has not."""
    if len(rows) and not 0 <= rows.min() <= rows.max() < len(own):
        raise DataError(
            f"site {site}: rows {rows.min()} to {rows.max()} asked of task {task} "
            f"('{name}'), of which it has {len(own)}"
        )
    found: np.ndarray = own[rows]
    return found


def check_task(site: int, task: int, count: int) -> None:
    """Raise :class:`DataError` unless there is a task of this number."""
    if not 0 <= task < count:
        raise DataError(f"there is no task {task}, only 0 to {count - 1} (site {site})")


def check_held(site: int, count: int) -> None:
    """Raise :class:`DataError` for a site that holds no rows out and so cannot be judged."""
    if not count:
        raise DataError(
            f"site {site} holds no rows out, so that it has none to be judged by; raise "
            "task.held_out (a client of one row holds none out: give it two), or set "
            "evaluate.clients_every to 0"
        )


def server_rows(count: int, most: int | None, seeds: Seeds) -> np.ndarray:
    """Draw ``most`` of the test rows for the server, ascending; all where there are no more."""
    if most is None or most >= count:
        return np.arange(count)
    return np.sort(seeds.numpy().choice(count, most, replace=False))


def pixels(images: np.ndarray, side: int) -> np.ndarray:
    """Return images (n, side²) uint8 of 28 × 28 ones: as they are, pooled or zero-padded.

    Side 14 takes the mean of each 2 × 2 square, rounded; side 32 adds a border of two.
    """
    if side == 14:
        squares = images.reshape(len(images), 14, 2, 14, 2)
        total = squares.sum(axis=(2, 4), dtype=np.uint16)
        images = ((total + 2) // 4).astype(np.uint8)
    elif side == 32:
        images = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    return np.ascontiguousarray(images.reshape(len(images), side * side))


def check_images(found: ImageSet, side: int) -> None:
    """Raise :class:`ConfigError` for images or a side that :func:`pixels` does not know."""
    if side not in SIDES:
        raise ConfigError(f"task.side is {side!r}, expected one of {', '.join(map(str, SIDES))}")
    if found.train_x.shape[1:] != (28, 28):
        raise ConfigError(f"{found.name}: images are {found.train_x.shape[1:]}, expected (28, 28)")

"""The parts of secure aggregation: shares, keys, masks, records."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord

from fedalt.errors import ConfigError, WireError
from fedalt.secagg import shamir
from fedalt.secagg.keys import (
    SEAL,
    agree,
    commitment,
    new_pair,
    new_seed,
    public_of,
    seal,
    unseal,
)
from fedalt.secagg.masks import add_stream, mask, unmask
from fedalt.secagg.messages import Claim, Keys, from_record, to_record
from fedalt.secagg.recover import recover_key, recover_seed
from fedalt.secagg.threshold import threshold

POINTS = (1, 2, 5, 9, 40, 1000)


def test_any_threshold_of_shares_gives_the_secret_back() -> None:
    secret = os.urandom(32)
    shares = dict(zip(POINTS, shamir.split(secret, 4, POINTS), strict=True))
    for left in ((1, 2, 5, 9), (1000, 2, 40, 1), (5, 9, 40, 1000)):
        assert shamir.combine({point: shares[point] for point in left}) == secret
    assert shamir.combine(shares) == secret
    assert all(len(share) == shamir.SHARE for share in shares.values())


def test_fewer_shares_fit_any_secret_whatever() -> None:
    """For three of four shares and any guess there is a fourth that makes the guess."""
    shares = dict(zip(POINTS, shamir.split(os.urandom(32), 4, POINTS), strict=True))
    few = {point: shares[point] for point in POINTS[:3]}
    with pytest.raises(WireError, match="make no secret"):
        shamir.combine(few)
    weights = dict(zip(POINTS[:4], shamir._weights(POINTS[:4]), strict=True))
    known = sum(weights[point] * int.from_bytes(share) for point, share in few.items())
    for guess in (bytes(32), b"\xff" * 32, os.urandom(32)):
        rest = (int.from_bytes(guess) - known) * pow(weights[9], -1, shamir.PRIME) % shamir.PRIME
        assert shamir.combine({**few, 9: rest.to_bytes(shamir.SHARE)}) == guess


@pytest.mark.parametrize("bad", [(2, 2, 3), (0, 1, 2)])
def test_points_of_shares_are_distinct_and_not_zero(bad: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="distinct and positive"):
        shamir.split(bytes(32), 2, bad)


def test_recovery_finds_shares_that_belong_together() -> None:
    pair, seed, sites = new_pair(), new_seed(), range(6)
    digest = commitment(seed, b"label")
    of_key = dict(zip(sites, shamir.split(pair.private, 4, [s + 1 for s in sites]), strict=True))
    of_seed = dict(zip(sites, shamir.split(seed, 4, [s + 1 for s in sites]), strict=True))
    for bad in sites:
        garbage = {bad: os.urandom(1).rjust(66, b"\0")}
        assert recover_key({**of_key, **garbage}, 4, pair.public) == pair.private
        assert recover_seed({**of_seed, **garbage}, 4, digest, b"label") == seed
    assert recover_seed({s: of_seed[s] for s in range(3)}, 4, digest, b"label") is None
    assert recover_seed({**of_seed, 0: b"", 1: b"", 2: b""}, 4, digest, b"label") is None
    assert recover_seed(of_seed, 4, digest, b"other") is None


def test_both_ends_agree_and_labels_keep_keys_apart() -> None:
    one, two = new_pair(), new_pair()
    assert agree(one.private, two.public, b"a") == agree(two.private, one.public, b"a")
    assert agree(one.private, two.public, b"a") != agree(one.private, two.public, b"b")
    assert public_of(one.private) == one.public
    assert one.private.hex() not in repr(one)
    with pytest.raises(WireError, match="none of X25519"):
        agree(one.private, bytes(32), b"a")
    with pytest.raises(WireError, match="none of X25519"):
        agree(one.private, b"short", b"a")


def test_a_box_opens_for_its_purpose_alone() -> None:
    key = new_seed()
    box = seal(key, b"text", b"from 1 to 2")
    assert len(box) == 4 + SEAL and unseal(key, box, b"from 1 to 2") == b"text"
    for wrong, about in ((box, b"from 2 to 1"), (box[:-1] + bytes(1), b""), (b"", b"")):
        with pytest.raises(WireError, match="was not made by its sender"):
            unseal(key, wrong, about)


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
@pytest.mark.parametrize("size", [0, 1, 7, 2**18, 2**18 + 3])
def test_a_stream_is_one_whatever_its_length(dtype: Any, size: int) -> None:
    key, long = new_seed(), np.zeros(2**18 + 50, dtype)
    add_stream(long, key, 1)
    short = np.zeros(size, dtype)
    add_stream(short, key, 1)
    np.testing.assert_array_equal(short, long[:size])
    add_stream(short, key, -1)
    assert not short.any()


def test_pairs_cancel_and_what_is_left_comes_off() -> None:
    sites, dtype = range(5), np.uint32
    plain = [np.arange(3, dtype=dtype) + site for site in sites]
    keys = {(i, j): new_seed() for i in sites for j in sites if i < j}
    seeds = [new_seed() for _ in sites]
    sent = [
        mask(plain[i], i, seeds[i], {j: keys[min(i, j), max(i, j)] for j in sites if j != i})
        for i in sites
    ]
    alive = (0, 2, 3)
    total = np.add.reduce([sent[i] for i in alive]).astype(dtype)
    left = {(i, j): keys[min(i, j), max(i, j)] for i in alive for j in (1, 4)}
    found = unmask(total, {i: seeds[i] for i in alive}, left)
    np.testing.assert_array_equal(found, np.add.reduce([plain[i] for i in alive]))


@pytest.mark.parametrize(
    ("sites", "dropouts", "wanted"),
    [(3, 0.0, 3), (3, 0.9, 3), (4, 0.5, 3), (10, 0.3, 7), (10, 0.99, 6), (100, 0.3, 70), (7, 0, 7)],
)
def test_thresholds_are_a_majority_and_three(sites: int, dropouts: float, wanted: int) -> None:
    assert threshold(sites, dropouts) == wanted


def test_a_cohort_of_two_hides_nobody() -> None:
    with pytest.raises(ConfigError, match="the cohort is of 2"):
        threshold(2, 0.0)


def test_records_are_read_back_and_checked() -> None:
    claim = Claim("run", 1, "train", (0, 2), ())
    assert from_record(Claim, to_record(claim)) == claim
    keys = to_record(Keys("run", 1, "train", 3, b"a", b"b"))
    for name, value in (("site", -1), ("site", True), ("round", 1.0), ("sealing", "text")):
        with pytest.raises(WireError, match=f"Keys.{name} is missing, or is not"):
            from_record(Keys, ConfigRecord({**keys, name: value}))  # type: ignore[dict-item]
    with pytest.raises(WireError, match=r"Claim\.lost"):
        from_record(Claim, ConfigRecord({**to_record(claim), "lost": [b"x"]}))
    with pytest.raises(WireError, match="no record"):
        from_record(Claim, None)

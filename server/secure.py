"""The server's half of a secure aggregation: it learns a sum of updates, and nothing besides.

    Σ_{i∈U₃} q_i = Σ_{i∈U₃} (y_i − G(b_i)) − Σ_{i∈U₃, j∈U₂∖U₃} ±G(s_ij)        modulo 2ᵏ

(Bonawitz et al. 2017, "Practical secure aggregation for privacy-preserving machine learning",
protocol 4.) U₁ sent keys, U₂ shared secrets, U₃ sent a masked vector y_i, and of U₃ some answer
the last step with shares: of the seeds b_i of U₃, and of the masking keys of the lost U₂∖U₃.
Each step needs t sites, or the sum stays masked and the phase ends in :class:`QuorumError`. The
phase's ``dropouts`` says how many may be lost; the run's quorum does not count here. A site that
is lost after its masked vector is in the sum still.

Every pair of the cohort shares a mask: a site expands n of them, and the server n, and one for
each survivor and lost site; in a simulation that is n² streams of d numbers.

Server and sites are taken to be honest but curious. A site that sends garbage is refused where
that shows; one whose shares for others are garbage can spoil a sum, and learns of none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict

from fedalt.errors import WireError
from fedalt.privacy.clipping import bounded_groups, check_floats
from fedalt.secagg.keys import KEY, SEAL, agree
from fedalt.secagg.lattice import Lattice, lattice_of
from fedalt.secagg.masks import unmask
from fedalt.secagg.messages import (
    CALL,
    MASK,
    SECAGG,
    SHARE,
    UNMASK,
    Call,
    Claim,
    Keys,
    Masked,
    Roster,
    Routed,
    Sealed,
    Shares,
    content_of,
    read,
    to_record,
)
from fedalt.secagg.recover import recover_key, recover_seed
from fedalt.secagg.shamir import SHARE as SHARE_BYTES
from fedalt.server.admission import Refused
from fedalt.server.round import Dispatch, Federation
from fedalt.server.secure_talk import Talk
from fedalt.server.stopwatch import OFF, Stopwatch
from fedalt.wire.arrays import arrays_of


@dataclass(frozen=True)
class SecureSum:
    """A sum of weighted, clipped updates with all the noise that their sites added.

    ``total`` is float64 by array; ``sites`` those in it, ascending; ``refused`` who fell out and
    why, be it after its masked vector. ``noise_multiplier`` is ``noise_std`` over
    ``sensitivity``, for all blocks together, as it is with so many sites. Bytes are of arrays,
    keys and shares; ``steps`` of local work are withheld.
    """

    total: dict[str, np.ndarray]
    sites: tuple[int, ...]
    refused: tuple[Refused, ...]
    noise_multiplier: float
    noise_std: float
    sensitivity: float
    bytes_down: int
    bytes_up: int
    steps: int = 0


@dataclass(frozen=True)
class _Sum:
    """A masked sum, the sites in it, and those that shared secrets and are not."""

    vector: np.ndarray
    survivors: tuple[int, ...]
    lost: tuple[int, ...]


def collect_secure(federation: Federation, part: Dispatch, watch: Stopwatch = OFF) -> SecureSum:
    """Send a phase's messages under secure aggregation, and return the sum of the updates.

    Raises :class:`fedalt.errors.ConfigError` for a cohort or arrays that no sum can hide, and
    :class:`fedalt.errors.QuorumError` where fewer sites than the threshold are left: then
    nothing was unmasked.
    """
    lattice = _lattice(federation, part)
    talk = Talk(federation, part, lattice.threshold, watch)
    keys = _advertise(talk)
    sealed = _share(talk, keys)
    masked = _mask(talk, keys, sealed, lattice)
    shares = _claim(talk, masked)
    with watch.span("aggregation"):
        total = _unmasked(talk, keys, sealed, masked, shares)
        noise = lattice.noise(len(masked.survivors))
        return SecureSum(
            total=lattice.decode(total),
            sites=masked.survivors,
            refused=tuple(sorted(talk.refused, key=lambda item: item.site)),
            noise_multiplier=noise.multiplier,
            noise_std=noise.std,
            sensitivity=noise.sensitivity,
            bytes_down=talk.bytes_down,
            bytes_up=talk.bytes_up,
        )


def _lattice(federation: Federation, part: Dispatch) -> Lattice:
    spec, arrays = part.phase.privacy, part.expected.arrays
    assert spec is not None
    check_floats(arrays, f"phase '{part.phase.name}'")
    groups = bounded_groups(spec, list(arrays), federation.blocks.members)
    shapes = {name: np.shape(values) for name, values in arrays.items()}
    return lattice_of(spec, groups, shapes, len(part.messages))


def _advertise(talk: Talk) -> dict[int, Keys]:
    """Step 1: ask for public keys."""

    def reader(site: int, content: RecordDict) -> Keys:
        keys = read(Keys, content)
        talk.check(site, keys)
        if len(keys.sealing) != KEY or len(keys.masking) != KEY:
            raise WireError(f"its public keys are not of {KEY} bytes")
        return keys

    call = Call(*talk.session.names(), len(talk.part.messages), talk.threshold)
    return talk.ask(talk.tell(CALL, content_of(call), talk.nodes), "sent keys", reader)


def _share(talk: Talk, keys: Mapping[int, Keys]) -> dict[int, Sealed]:
    """Step 2: tell everyone's public keys, and ask for shares of secrets, sealed for each."""
    due = [2 * SHARE_BYTES + SEAL] * (len(keys) - 1)

    def reader(site: int, content: RecordDict) -> Sealed:
        sealed = read(Sealed, content)
        talk.check(site, sealed)
        if [len(box) for box in sealed.boxes] != due or len(sealed.commitment) != KEY:
            raise WireError(
                f"it sends {len(sealed.boxes)} boxes, due are {len(due)} of "
                f"{2 * SHARE_BYTES + SEAL} bytes, and a commitment of {KEY}"
            )
        return sealed

    roster = Roster(
        *talk.session.names(),
        tuple(keys),
        tuple(item.sealing for item in keys.values()),
        tuple(item.masking for item in keys.values()),
    )
    return talk.ask(talk.tell(SHARE, content_of(roster), keys), "shared secrets", reader)


def _mask(
    talk: Talk, keys: Mapping[int, Keys], sealed: Mapping[int, Sealed], lattice: Lattice
) -> _Sum:
    """Step 3: send the instruction and each site's boxes; add up the masked vectors."""
    total = np.zeros(lattice.size, lattice.dtype)

    def reader(site: int, content: RecordDict) -> bool:
        talk.check(site, read(Masked, content))
        records = [record for record in content.values() if isinstance(record, ArrayRecord)]
        if len(records) != 1:
            raise WireError(f"it sends {len(records)} records of arrays, one is due")
        np.add(total, lattice.check(arrays_of(records[0])), out=total)
        return True

    boxes = {
        sender: dict(zip(_but(keys, sender), item.boxes, strict=True))
        for sender, item in sealed.items()
    }
    messages = _routed(talk, boxes)
    found = talk.ask(messages, "sent a masked vector", reader)
    return _Sum(total, tuple(found), tuple(site for site in sealed if site not in found))


def _routed(talk: Talk, boxes: Mapping[int, Mapping[int, bytes]]) -> list[Message]:
    """Return the phase's own messages to the sites that shared, each with its boxes."""
    messages = []
    for original in talk.part.messages:
        node = original.metadata.dst_node_id
        site = talk.part.places[node]
        if site not in boxes:
            continue
        senders = _but(boxes, site)
        routed = Routed(senders, tuple(boxes[sender][site] for sender in senders))
        content = RecordDict(dict(original.content.items()))
        content[SECAGG] = to_record(routed)
        messages += talk.tell(MASK, content, [site])
    return messages


def _claim(talk: Talk, masked: _Sum) -> dict[int, Shares]:
    """Step 4: say who is in the sum and who was lost, and ask for what unmasks it."""

    def reader(site: int, content: RecordDict) -> Shares:
        shares = read(Shares, content)
        talk.check(site, shares)
        counts = len(shares.seeds), len(shares.keys)
        sizes = {len(share) for share in (*shares.seeds, *shares.keys)}
        if counts != (len(masked.survivors), len(masked.lost)) or not sizes <= {0, SHARE_BYTES}:
            raise WireError(
                f"it sends {counts} shares of seeds and keys, due are "
                f"{(len(masked.survivors), len(masked.lost))} of {SHARE_BYTES} bytes"
            )
        return shares

    claim = Claim(*talk.session.names(), masked.survivors, masked.lost)
    messages = talk.tell(UNMASK, content_of(claim), masked.survivors)
    return talk.ask(messages, "sent shares", reader)


def _unmasked(
    talk: Talk,
    keys: Mapping[int, Keys],
    sealed: Mapping[int, Sealed],
    masked: _Sum,
    shares: Mapping[int, Shares],
) -> np.ndarray:
    """Recover every secret first, so that nothing is unmasked unless all is."""
    seeds: dict[int, bytes] = {}
    pairs: dict[tuple[int, int], bytes] = {}
    for place, site in enumerate(masked.survivors):
        held = {sharer: item.seeds[place] for sharer, item in shares.items()}
        digest, label = sealed[site].commitment, talk.session.label("seed", site)
        seed = recover_seed(held, talk.threshold, digest, label)
        if seed is None:
            raise talk.too_few(f"the shares of site {site}'s seed make it not")
        seeds[site] = seed
    for place, lost in enumerate(masked.lost):
        held = {sharer: item.keys[place] for sharer, item in shares.items()}
        private = recover_key(held, talk.threshold, keys[lost].masking)
        if private is None:
            raise talk.too_few(f"the shares of site {lost}'s masking key make it not")
        for site in masked.survivors:
            label = talk.session.label("mask", *sorted((site, lost)))
            pairs[site, lost] = agree(private, keys[site].masking, label)
    return unmask(masked.vector, seeds, pairs)


def _but(sites: Iterable[int], one: int) -> tuple[int, ...]:
    return tuple(site for site in sites if site != one)

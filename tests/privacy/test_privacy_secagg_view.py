"""What a server of a secure sum can see: the sum, and of a single update nothing.

Every message of a round is recorded. The masked vectors are uniform; for any updates of equal
sum there are masks that give the server the very same messages; and the secrets that would tell
masks are out of its reach, asked for in whatever way the protocol knows.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federations import LeastSquares
from flwr.app import Message
from scipy import stats
from secagg_rounds import RUN, SEED, Wire, lose, phase_of, secure, sent, vectors

from fedalt.clients.secure import HELD
from fedalt.errors import QuorumError, WireError
from fedalt.grids.store import StateStore
from fedalt.privacy.noise import noise_generator
from fedalt.secagg import masks, messages
from fedalt.secagg.keys import agree, new_seed, unseal
from fedalt.secagg.lattice import Lattice
from fedalt.secagg.messages import (
    CALL,
    MASK,
    SHARE,
    UNMASK,
    VECTOR,
    Call,
    Claim,
    Roster,
    Sealed,
    Session,
    Shares,
    content_of,
    read,
)
from fedalt.secagg.shamir import combine
from fedalt.seeds import Seeds
from fedalt.server.round import collect
from fedalt.wire.arrays import arrays_of

WIDE = LeastSquares(5, features=3000)
TASK = LeastSquares(5)
PHASE = phase_of(dropouts=0.4)
SESSION = (RUN, 1, "train")


def masked_of(grid: Wire) -> dict[int, np.ndarray]:
    return {
        site: arrays_of(reply.content["arrays"])[VECTOR]  # type: ignore[arg-type]
        for action, site, reply in grid.heard
        if action == MASK
    }


def uniform(vector: np.ndarray) -> float:
    """Return the p-value of the χ² test that bytes are uniform."""
    counts = np.bincount(vector.view(np.uint8), minlength=256)
    return float(stats.chisquare(counts).pvalue)


def test_masked_vectors_are_uniform_and_bare_ones_are_not() -> None:
    grid = Wire(WIDE)
    secure(WIDE, grid, PHASE)
    found = masked_of(grid)
    assert len(found) == 5
    for vector in found.values():
        assert len(vector) == 3001 and uniform(vector) > 1e-9
    assert uniform(np.concatenate(list(found.values()))) > 1e-9
    for i, j in ((0, 1), (2, 4)):
        # Nor does a difference of two, in which a common mask would cancel, tell anything.
        assert uniform(found[i] - found[j]) > 1e-9 and uniform(found[i] + found[j]) > 1e-9
    _, bare = vectors(WIDE, PHASE)
    assert all(uniform(vector) < 1e-30 for vector in bare)


def test_the_sum_alone_is_not_uniform() -> None:
    grid = Wire(WIDE, lose({MASK: [3]}))
    found = secure(WIDE, grid, PHASE)
    lattice, bare = vectors(WIDE, PHASE)
    assert found.sites == (0, 1, 2, 4)
    total = np.add.reduce([bare[site] for site in found.sites]).astype(lattice.dtype)
    assert uniform(total) < 1e-30


def test_a_server_hears_vectors_keys_and_shares_and_nothing_else() -> None:
    grid = Wire(TASK, lose({MASK: [3]}))
    secure(TASK, grid, PHASE)
    for action, _, reply in grid.heard:
        records = set(reply.content)
        assert records == ({"secagg", "arrays"} if action == MASK else {"secagg"})
        if action == MASK:
            assert set(reply.content["secagg"]) == {"run_id", "round", "phase", "site"}
            assert list(reply.content["arrays"]) == [VECTOR]
    last = [reply for action, _, reply in grid.heard if action == UNMASK]
    for reply in last:
        shares = read(Shares, reply.content)
        assert (len(shares.seeds), len(shares.keys)) == (4, 1)


def test_updates_of_equal_sum_look_alike_under_some_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """For fixed messages and any other updates of the same sum there are pair masks to match.

    Streams are tables here, so that a mask can be any vector, as a uniform one can: site i's
    pair with its neighbour takes up the running sum of the differences. The masks being
    uniform, both updates then make these messages with the same probability.
    """
    rng, sites, d = np.random.default_rng(0), range(4), 50

    def vector() -> np.ndarray:
        return rng.integers(0, 2**32, d, dtype=np.uint32)

    def total(some: list[np.ndarray]) -> np.ndarray:
        return np.add.reduce(some, dtype=np.uint32)

    table: dict[bytes, np.ndarray] = {}

    def stream(into: np.ndarray, key: bytes, sign: int) -> None:
        into += table[key] if sign > 0 else -table[key]

    monkeypatch.setattr(masks, "add_stream", stream)
    keys = {(i, j): new_seed() for i in sites for j in sites if i < j}
    seeds = {i: new_seed() for i in sites}
    table.update({key: vector() for key in (*keys.values(), *seeds.values())})

    def view(updates: list[np.ndarray]) -> list[np.ndarray]:
        return [
            masks.mask(
                updates[i], i, seeds[i], {j: keys[min(i, j), max(i, j)] for j in sites if j != i}
            )
            for i in sites
        ]

    one = [vector() for _ in sites]
    two = [vector() for _ in sites[:-1]]
    two.append(total(one) - total(two))
    before = view(one)
    assert any(np.any(a != b) for a, b in zip(before, view(two), strict=True))
    moved = np.zeros(d, np.uint32)
    for i in sites[:-1]:
        moved = moved + one[i] - two[i]
        table[keys[i, i + 1]] = table[keys[i, i + 1]] + moved
    after = view(two)
    for first, second in zip(before, after, strict=True):
        np.testing.assert_array_equal(first, second)
    # What is given up at the end, the seeds, is the same too: one view, two sets of updates.
    np.testing.assert_array_equal(masks.unmask(total(after), seeds, {}), total(one))


def held(grid: Wire, site: int) -> Any:
    return grid.context(grid._nodes[site]).state[HELD]


def stopped_before(action: str, grid: Wire, phase: Any = PHASE) -> None:
    """Run a round until an action's messages would go out."""

    class Stop(Exception):
        pass

    send = grid.send_and_receive

    def watch(batch: Any, *, timeout: Any = None) -> Any:
        if batch[0].metadata.message_type == f"train.{action}":
            raise Stop
        return send(batch, timeout=timeout)

    grid.send_and_receive = watch  # type: ignore[method-assign]
    with pytest.raises(Stop):
        secure(TASK, grid, phase)
    grid.send_and_receive = send  # type: ignore[method-assign]


def ask(grid: Wire, site: int, action: str, content: Any) -> Message:
    message = Message(content_of(content), grid._nodes[site], f"train.{action}")
    (reply,) = grid.send_and_receive([message])
    return reply


def refusal(reply: Message) -> str:
    assert reply.has_error()
    return str(reply.error.reason)


def test_a_server_and_fewer_sites_than_the_threshold_recover_nothing() -> None:
    """Two colluding sites open their boxes: their shares of site 0's secrets make neither."""
    grid = Wire(TASK)
    stopped_before(UNMASK, grid)
    spies, shares = (3, 4), dict[int, bytes]()
    for spy in spies:
        state = held(grid, spy)
        label = Session(*SESSION).label("seal", *sorted((0, spy)))
        key = agree(state["sealing"], state["sealing_keys"][0], label)
        box = dict(zip(state["senders"], state["boxes"], strict=True))[0]
        shares[spy + 1] = unseal(key, box, Session(*SESSION).label("box", 0, spy))
    for half in (slice(0, 66), slice(66, 132)):
        with pytest.raises(WireError, match="make no secret"):
            combine({point: text[half] for point, text in shares.items()})
    # The server routes boxes that it cannot open with any key it has seen.
    sealed = [read(Sealed, m.content) for action, _, m in grid.heard if action == SHARE]
    publics = held(grid, 0)["sealing_keys"]
    for public in publics:
        with pytest.raises(WireError):
            unseal(public, sealed[0].boxes[0], Session(*SESSION).label("box", 0, 1))


@pytest.mark.parametrize(
    ("survivors", "lost", "reason"),
    [
        ((0, 1, 2, 3, 4), (2,), "both secrets are asked of site 2"),
        ((0, 1, 2, 3), (3, 4), "both secrets are asked of site 3"),
        ((0, 1), (2, 3, 4), "2 sites are in the sum, at least 3 must be"),
        ((0, 1, 2), (3,), "not the sites that site 0 heard from"),
        ((0, 1, 2, 3, 4, 5), (), "not the sites that site 0 heard from"),
        ((0, 1, 2, 3, 3, 4), (), "not the sites that site 0 heard from"),
        ((1, 2, 3, 4), (0,), "not the sites that site 0 heard from"),
    ],
)
def test_a_site_refuses_to_unmask_what_hides_nobody(
    survivors: tuple[int, ...], lost: tuple[int, ...], reason: str
) -> None:
    grid = Wire(TASK)
    stopped_before(UNMASK, grid)
    assert reason in refusal(ask(grid, 0, UNMASK, Claim(*SESSION, survivors, lost)))


def test_a_site_answers_one_claim_and_no_second() -> None:
    grid = Wire(TASK)
    stopped_before(UNMASK, grid)
    first = Claim(*SESSION, (0, 1, 2, 3, 4), ())
    assert ask(grid, 0, UNMASK, first).has_content()
    for again in (first, Claim(*SESSION, (0, 1, 2, 3), (4,))):
        assert "answers nothing more" in refusal(ask(grid, 0, UNMASK, again))


@pytest.mark.parametrize("session", [("other", 1, "train"), (RUN, 2, "train"), (RUN, 1, "another")])
def test_steps_of_another_sum_are_refused(session: tuple[str, int, str]) -> None:
    grid = Wire(TASK)
    stopped_before(UNMASK, grid)
    reason = refusal(ask(grid, 0, UNMASK, Claim(*session, (0, 1, 2, 3, 4), ())))
    assert "was asked, but this site is in round 1, phase 'train'" in reason


def test_steps_out_of_turn_are_refused() -> None:
    grid = Wire(TASK)
    claim = Claim(*SESSION, (0, 1, 2, 3, 4), ())
    assert "holds nothing of that sum" in refusal(ask(grid, 0, UNMASK, claim))
    stopped_before(SHARE, grid)
    assert "has advertised and answers secagg_shares" in refusal(ask(grid, 0, UNMASK, claim))


@pytest.mark.parametrize(("sites", "threshold"), [(2, 2), (1, 1), (10, 5), (4, 2), (3, 4)])
def test_a_site_refuses_a_cohort_that_hides_nobody(sites: int, threshold: int) -> None:
    reply = ask(Wire(TASK), 0, CALL, Call(*SESSION, sites, threshold))
    assert "hides" in refusal(reply)


def keys(count: int) -> tuple[bytes, ...]:
    return tuple(os.urandom(32) for _ in range(count))


@pytest.mark.parametrize(
    ("sites", "publics", "reason"),
    [
        ((0, 1), keys(4), "of 5 at least 3 must be in"),
        ((1, 2, 3), keys(6), "out of order, or lacks keys or site 0"),
        ((0, 2, 1), keys(6), "out of order"),
        ((0, 1, 1), keys(6), "out of order"),
        ((0, 1, 2), keys(4), "lacks keys"),
        ((0, 1, 2), keys(3) * 2, "of one site each"),
        ((0, 1, 2), (*keys(5), b"short"), "of 32 bytes"),
        ((0, 1, 2, 3, 4, 5), keys(12), "of 5 at least 3 must be in"),
    ],
)
def test_a_site_refuses_a_roster_that_cannot_be(
    sites: tuple[int, ...], publics: tuple[bytes, ...], reason: str
) -> None:
    grid = Wire(TASK)
    stopped_before(SHARE, grid)
    half = len(publics) // 2
    roster = Roster(*SESSION, sites, publics[:half], publics[half:])
    assert reason in refusal(ask(grid, 0, SHARE, roster))


def test_a_call_on_other_terms_than_the_phase_gets_no_vector() -> None:
    """The server calls with a threshold of 3, and then sends a phase in which 5 are needed."""
    grid = Wire(TASK)
    stopped_before(MASK, grid)
    fed, part = sent(TASK, grid, phase_of())
    for message in part.messages:
        message.metadata.message_type = f"train.{MASK}"
        message.content["secagg"] = messages.to_record(messages.Routed((1, 2, 3, 4), (b"",) * 4))
    replies = list(grid.send_and_receive(part.messages[:1]))
    assert fed.grid is grid and "threshold was 3" in refusal(replies[0])


def test_secrets_stay_out_of_checkpoints_and_go_with_the_sum(tmp_path: Path) -> None:
    grid = Wire(TASK, lose({MASK: [1]}))
    grid._states = StateStore(tmp_path)
    stopped_before(UNMASK, grid)
    state = held(grid, 0)
    secrets = [state["sealing"], *state["boxes"], state["own_shares"]]
    assert len(state["sealing"]) == 32 and state["seed"] == state["masking"] == b""
    grid.save_states()
    assert grid.export_states() == {}
    for file in tmp_path.rglob("*"):
        text = file.read_bytes() if file.is_file() else b""
        assert not any(secret in text for secret in secrets)
    ask(grid, 0, UNMASK, Claim(*SESSION, (0, 2, 3, 4), (1,)))
    assert not any(value for key, value in held(grid, 0).items() if key in
                   ("sealing", "masking", "seed", "own_shares", "boxes"))  # fmt: skip
    # What a lost site still holds goes with the next call, or with a later round's work.
    assert held(grid, 1)["sealing"]
    fed, part = sent(TASK, grid, replace(PHASE, privacy=None), number=2)
    collect(fed, [part])
    assert HELD not in grid.context(grid._nodes[1]).state
    grid.import_states({})
    assert HELD not in grid.context(grid._nodes[0]).state


def test_a_new_call_forgets_a_former_sum() -> None:
    grid = Wire(TASK)
    stopped_before(UNMASK, grid)
    former = held(grid, 0)["sealing"]
    ask(grid, 0, CALL, Call(RUN, 2, "train", 5, 3))
    assert held(grid, 0)["sealing"] != former and held(grid, 0)["round"] == 2
    claim = Claim(*SESSION, (0, 1, 2, 3, 4), ())
    assert "this site is in round 2" in refusal(ask(grid, 0, UNMASK, claim))


def test_masks_and_keys_do_not_follow_from_the_seed() -> None:
    found = []
    for _ in range(2):
        grid = Wire(TASK)
        total = secure(TASK, grid, PHASE).total
        found.append((total, masked_of(grid)))
    (one, first), (two, second) = found
    np.testing.assert_array_equal(one["weight"], two["weight"])
    assert all(np.all(first[site] != second[site]) for site in first)


def test_noise_of_the_operating_system_differs_from_run_to_run() -> None:
    phase = phase_of(dropouts=0.4, rng="os")
    one, two = (secure(TASK, Wire(TASK), phase).total["weight"] for _ in range(2))
    assert np.all(one != two)
    lattice: Lattice = vectors(TASK, PHASE)[0]
    update = {name: np.zeros(shape) for name, shape in lattice.shapes.items()}
    drawn = [lattice.encode(update, noise_generator("os", Seeds(SEED))) for _ in range(2)]
    assert np.all(drawn[0] != drawn[1])


def test_refusals_below_the_threshold_tell_no_secret() -> None:
    grid = Wire(TASK, lose({MASK: [0, 1, 2]}))
    with pytest.raises(QuorumError) as caught:
        secure(TASK, grid, PHASE)
    seen = {bytes(held(grid, site)["sealing"]) for site in range(5)}
    assert not any(secret.hex() in str(caught.value) for secret in seen)

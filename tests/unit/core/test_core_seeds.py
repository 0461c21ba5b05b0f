"""Seeds: the same labels draw what they always drew, in whatever way they were walked."""

from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedalt.seeds import Seeds

ROUND = Seeds(7).at("round", 3, "phase", "train", "client", 17)

# Drawn by the first version of this module; a change here changes every run there has been.
GOLDEN = {
    Seeds(0): (6569863346532939966, [5874934615388537135, 2488343231644625808]),
    ROUND: (500414731243714996, [5460470802781302225, 5156764279158922606]),
    Seeds(2**40 + 5).at("é", -2, 0): (
        4018428821445939480,
        [7497902065248215654, 104218018933575687],
    ),
    Seeds(2**130 + 1, ("initial",)): (
        730190721454364498,
        [4986914981697374423, 4576164472724538278],
    ),
    Seeds(2**32).at(5): (2884784358861998761, [1192771490294712037, 7647582993501097487]),
    Seeds(1).at("1", 1): (5383878047456640663, [2007984672821997008, 2747853931284762857]),
}


@pytest.mark.parametrize("seeds", GOLDEN, ids=repr)
def test_draws_are_those_of_the_first_version(seeds: Seeds) -> None:
    assert (seeds.integer(), seeds.numpy().integers(2**63, size=2).tolist()) == GOLDEN[seeds]


def test_torch_and_spawned_generators_draw_as_ever() -> None:
    import torch

    assert torch.rand(1, generator=ROUND.torch()).item() == pytest.approx(0.4753982424736023, 1e-7)
    children = [int(child.integers(2**63)) for child in ROUND.numpy().spawn(2)]
    assert children == [4443513235113142329, 5339688353840755334]


labels = st.lists(st.integers(-(2**70), 2**70) | st.text(max_size=5) | st.booleans(), max_size=6)


@given(st.integers(0, 2**140), labels)
def test_a_place_is_numpys_seed_sequence_of_root_and_label_words(
    root: int, path: list[int | str]
) -> None:
    """The definition, in full: 16 bytes of each label's SHA-256 as a spawn key of the root."""
    key = []
    for label in path:
        kind = "i" if isinstance(label, int) else "s"
        digest = hashlib.sha256(f"{kind}:{label}".encode()).digest()
        key += [int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4)]
    plain = np.random.SeedSequence(root, spawn_key=tuple(key))
    found = Seeds(root).at(*path).sequence()
    assert found.generate_state(8).tolist() == plain.generate_state(8).tolist()
    (mine,), (theirs,) = found.spawn(1), plain.spawn(1)
    assert mine.generate_state(4).tolist() == theirs.generate_state(4).tolist()


def test_the_way_to_a_place_does_not_matter() -> None:
    whole, steps = Seeds(3, ("a", 1, "b")), Seeds(3).at("a").at(1).at("b")
    assert whole == steps == pickle.loads(pickle.dumps(steps)) and hash(whole) == hash(steps)
    assert len({s.integer() for s in (whole, steps, pickle.loads(pickle.dumps(steps)))}) == 1
    assert Seeds(3).at(np.int64(4)).integer() == Seeds(3).at(4).integer()
    assert Seeds(3).at(True).integer() != Seeds(3).at(1).integer()
    assert Seeds(3).at("1").integer() != Seeds(3).at(1).integer()


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        Seeds(-1).at("a").numpy()

"""Tiny Shakespeare and the stream of its roles: exact numbers, and no character in two places."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedalt.data import load_shakespeare
from fedalt.errors import ConfigError, DataError
from fedalt.scenarios.continual_text.task import RoleStream
from fedalt.scenarios.continual_text.windows import ALPHABET, encode, stretches
from fedalt.seeds import Seeds
from fedalt.task import StreamTask

SMALL: dict[str, Any] = {"tasks": 3, "clients": 2, "hidden": [20]}
needs_text = pytest.mark.skipif(
    not os.environ.get("FEDALT_DATA"), reason="FEDALT_DATA names no folder"
)


@needs_text
def test_the_text_holds_so_many_roles() -> None:
    found = load_shakespeare()
    assert len(found.speeches) == 298
    assert len(found.silent) == 10
    assert all(name.startswith("Ghost") for name in found.silent)
    assert sum(map(len, found.speeches.values())) == 7097
    assert sum(len(s) for said in found.speeches.values() for s in said) == 1_020_755
    assert dict(list(found.counts.items())[:3]) == {
        "GLOUCESTER": 37_825,
        "DUKE VINCENTIO": 34_282,
        "KING RICHARD II": 32_238,
    }
    assert found.largest(2) == ["GLOUCESTER", "DUKE VINCENTIO"]
    first = "Before we proceed any further, hear me speak."
    assert found.speeches["First Citizen"][0] == first
    # The one speech set off by a doubled blank line, and the last one of all.
    assert found.speeches["SAMPSON"][0].startswith("Gregory, o' my word")
    assert found.speeches["ANTONIO"][-1].endswith("Whiles thou art waking.")
    assert set("".join(map(found.text, found.speeches))) <= set(ALPHABET)


def write(folder: Path, content: bytes) -> Path:
    (folder / "text").mkdir()
    (folder / "text" / "tinyshakespeare.txt").write_bytes(content)
    return folder


def test_a_small_text_by_hand(tmp_path: Path) -> None:
    text = b"A:\nOne,\ntwo.\n\nLADY  B:\nThree.\n\n\nA:\nFour.\n\nC:\n\nLADY B:\nFive.\n"
    found = load_shakespeare(write(tmp_path, text), check_size=False)
    assert dict(found.speeches) == {"A": ("One,\ntwo.", "Four."), "LADY B": ("Three.", "Five.")}
    assert found.silent == ("C",)
    assert found.text("A") == "One,\ntwo.\n\nFour."
    assert found.counts == {"A": 16, "LADY B": 13}
    with pytest.raises(ConfigError, match="no role 'C' speaks"):
        found.text("C")
    with pytest.raises(ConfigError, match="3 roles were asked for, but 2 speak"):
        found.largest(3)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b"A:\nOne.\n\nTwo and\nmore.\n",
            "line 4: a speech begins with 'Two and', expected 'ROLE:'",
        ),
        (b"A:\nOne.\n\n\nTwo\n", "line 5: a speech begins with 'Two'"),
        (b"A:\nOn\xc3\xa9.\n", "byte 5: not ASCII"),
        (b"", "holds no speeches"),
        (b"A:\n\nB:\n", "holds no speeches"),
    ],
)
def test_a_text_of_another_form(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        load_shakespeare(write(tmp_path, content), check_size=False)


def test_a_text_that_is_not_there_or_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(DataError, match=r"wanted: text/tinyshakespeare\.txt .* can be had from"):
        load_shakespeare(tmp_path)
    with pytest.raises(DataError, match="holds 10 bytes, published are 1115394"):
        load_shakespeare(write(tmp_path, b"A:\nOne..\n\n"))


def test_stretches_share_no_character() -> None:
    found = stretches(1000, "A", 3, 16, 1, (0.2, 0.1))
    taken = np.zeros(1000, int)
    for starts in (*found.train, *found.held, found.test):
        held = np.unique(starts[:, None] + np.arange(17))
        taken[held] += 1
    assert taken.tolist() == [1] * 1000
    assert found.test.max() + 16 == 999
    thin = stretches(1000, "A", 3, 16, 5, (0.2, 0.1))
    assert np.array_equal(thin.train[1], found.train[1][::5])
    with pytest.raises(ConfigError, match="role 'A' has 100 characters, too few"):
        stretches(100, "A", 3, 16, 1, (0.2, 0.1))


def test_characters_outside_of_the_alphabet() -> None:
    assert encode("\n az").tolist() == [0, 1, 39, 64]
    with pytest.raises(DataError, match="holds '#'"):
        encode("a#b")


@needs_text
def test_rows_are_windows_of_the_role_and_what_comes_next() -> None:
    task, found = RoleStream(**SMALL, rows=500), load_shakespeare()
    assert isinstance(task, StreamTask)
    assert list(task.tasks) == ["GLOUCESTER", "DUKE VINCENTIO", "KING RICHARD II"]
    for number, role in enumerate(task.tasks):
        text = found.text(role)
        for site in range(2):
            assert task.task_rows(site, number) == 500
            rows = np.array([499, 0, 250])
            contexts, after = task.task_data(site, number, rows)
            starts = task.parts[number].train[site][rows]
            for start, context, code in zip(starts, contexts, after, strict=True):
                read = "".join(ALPHABET[c] for c in context)
                assert read + ALPHABET[code] == text[start : start + 17]


@needs_text
def test_where_windows_are_capped_so_are_those_held_out() -> None:
    task, whole = RoleStream(**SMALL, rows=450), RoleStream(**SMALL, rows=None)
    for number, (part, all_) in enumerate(zip(task.parts, whole.parts, strict=True)):
        for site in range(2):
            assert len(part.held[site]) == 50 < len(all_.held[site])
            assert set(part.held[site]) <= set(all_.held[site])
            rng = Seeds(0).at("rows", number, site).numpy()
            wanted = np.sort(rng.choice(all_.train[site], 450, replace=False))
            assert np.array_equal(part.train[site], wanted), "as before held-out rows were capped"


@needs_text
def test_no_character_of_a_role_is_in_two_places() -> None:
    task, found = RoleStream(**{**SMALL, "clients": 5}, test_rows=None), load_shakespeare()
    for role, part in zip(task.tasks, task.parts, strict=True):
        taken = np.zeros(len(found.text(role)), int)
        for starts in (*part.train, *part.held, part.test):
            taken[np.unique(starts[:, None] + np.arange(17))] += 1
        assert taken.max() == taken.min() == 1
        assert (np.concatenate([*part.train, *part.held]).max() + 16) < part.test.min()


@needs_text
def test_scores_by_role_and_by_site() -> None:
    task = RoleStream(**SMALL)
    initial = task.initial_arrays(Seeds(0))
    zeros = {name: np.zeros_like(values) for name, values in initial.items()}
    found = task.evaluate(zeros)
    keys = [f"{key}/{number}" for key in ("accuracy", "loss") for number in range(3)]
    assert set(found) == {"accuracy", "loss", *keys}
    assert all(found[f"loss/{n}"] == pytest.approx(math.log(65), abs=1e-5) for n in range(3))
    model = task.model()
    model.load_state_dict({name: torch.from_numpy(v) for name, v in initial.items()})
    data, slices = task.site_eval_data(1), task.site_eval_slices(1)
    own = task.site_scores(1, initial)
    assert set(own) == {"accuracy/0", "accuracy/1", "accuracy/2"}
    for name, rows in slices.items():
        _, metrics = task.loss(model, tuple(tensor[rows] for tensor in data))
        assert own[f"accuracy/{name}"] == pytest.approx(float(metrics["accuracy"]))
    assert len(task.site_data(1)[0]) == task.sites[1].size
    assert task.row_bytes == 17
    names = {name for block in task.blocks for name in initial if block.matches(name)}
    assert names == set(initial)


@needs_text
def test_a_site_that_holds_nothing_out_is_not_judged() -> None:
    task = RoleStream(**SMALL, held_out=0.0)
    with pytest.raises(DataError, match=r"site 1 holds no rows out.*task\.held_out"):
        task.site_eval_data(1)
    assert task.site_eval_slices(1) == {}


@needs_text
def test_the_server_judges_as_a_plain_loop_does() -> None:
    task, found = RoleStream(**SMALL, test_rows=300), load_shakespeare()
    arrays = task.initial_arrays(Seeds(3))
    a = {name: values.astype(np.float64) for name, values in arrays.items()}
    scores = task.evaluate(arrays)
    for number, role in enumerate(task.tasks):
        text, right, lost = found.text(role), 0, 0.0
        for start in task.parts[number].test:
            codes = [ALPHABET.index(character) for character in text[start : start + 17]]
            side_by_side = np.concatenate([a["embedding.weight"][code] for code in codes[:16]])
            hidden = np.maximum(a["body.0.weight"] @ side_by_side + a["body.0.bias"], 0.0)
            given = a["head.weight"] @ hidden + a["head.bias"]
            right += int(given.argmax() == codes[16])
            lost += float(np.log(np.exp(given - given.max()).sum()) + given.max())
            lost -= float(given[codes[16]])
        assert scores[f"accuracy/{number}"] == pytest.approx(right / 300)
        assert scores[f"loss/{number}"] == pytest.approx(lost / 300, rel=1e-4)


@needs_text
def test_a_role_is_learnt() -> None:
    task = RoleStream(tasks=1, clients=1, hidden=[64], window=8)
    model = task.model()
    arrays = task.initial_arrays(Seeds(0))
    model.load_state_dict({name: torch.from_numpy(v) for name, v in arrays.items()})
    adam, rng = torch.optim.Adam(model.parameters(), 3e-3), np.random.default_rng(0)
    for rows in np.array_split(rng.permutation(task.task_rows(0, 0)), 400):
        adam.zero_grad()
        task.loss(model, task.task_data(0, 0, rows))[0].backward()
        adam.step()
    found = task.evaluate({name: value.numpy() for name, value in model.state_dict().items()})
    # Always guessing the blank is right for about one character in six.
    assert found["accuracy"] > 0.25
    assert found["loss"] < 2.8


@needs_text
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tasks": 0}, "task.tasks is 0"),
        ({"tasks": 299}, "task.tasks is 299, but only 298 roles speak"),
        ({"tasks": 290}, "too few for windows of 16"),
        ({"tasks": 2, "roles": ["ROMEO", "JULIETT"]}, "no role 'JULIETT' .did you mean 'JULIET'"),
        ({"tasks": 2, "roles": ["ROMEO", "ROMEO"]}, "'ROMEO' is named twice"),
        ({"tasks": 3, "roles": ["ROMEO", "JULIET"]}, "names 2 roles, but task.tasks is 3"),
        ({"roles": "ROMEO"}, "task.roles is 'ROMEO', expected a list"),
        ({"clients": 0}, "task.clients is 0"),
        ({"window": 0}, "task.window is 0"),
        ({"stride": 1.5}, "task.stride is 1.5"),
        ({"held_out": 1}, "task.held_out is 1"),
        ({"test": 0.0}, "needs text to judge by"),
        ({"rows": 0}, "task.rows is 0"),
        ({"test_rows": 0}, "task.test_rows is 0"),
        ({"embedding": 0}, "task.embedding is 0"),
        ({"hidden": [0]}, r"task.hidden\[0\] is 0"),
        ({"hidden": 200}, "task.hidden is 200, expected a list"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        RoleStream(**settings)

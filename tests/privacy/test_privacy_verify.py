"""A ledger is verified from its entries alone, and no byte of it changes unseen."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federations import LeastSquares, federate

from fedalt.errors import LedgerError
from fedalt.privacy.account import Scope
from fedalt.privacy.accounting import Accountant
from fedalt.privacy.chain import Head, seal
from fedalt.privacy.events import gaussian, sampled
from fedalt.privacy.verify import has_ledger, verify
from fedalt.runs.folder import RunFolder
from fedalt.seeds import Seeds

DELTA = 1e-5
PHASES = {
    "train": {
        "kernel": "gradient",
        "batch_size": 10_000,
        "params": {"lr": 0.1},
        "clients": {"mode": "poisson", "rate": 0.5},
        "privacy": {"unit": "client", "clip": 1.0, "noise": 2.0},
    }
}
TERMS = {
    "delta": DELTA,
    "relation": "add_remove",
    "budget": {},
    "policy": "stop",
    "disjoint": "",
    "allow_unprotected": False,
}
FLIPS = 200


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private run of three rounds."""
    folder = tmp_path_factory.mktemp("runs") / "private"
    federate(LeastSquares(), folder, phases=PHASES, privacy=TERMS)
    return folder


@pytest.fixture
def run(kept: Path, tmp_path: Path) -> RunFolder:
    """A copy of the run, to tamper with. Its name stays: entries hold it."""
    shutil.copytree(kept, tmp_path / kept.name)
    return RunFolder(tmp_path / kept.name)


def lines(run: RunFolder) -> list[bytes]:
    return (run.path / "ledger.jsonl").read_bytes().splitlines(keepends=True)


def write(run: RunFolder, changed: list[bytes]) -> None:
    (run.path / "ledger.jsonl").write_bytes(b"".join(changed))


def resealed(entries: list[dict[str, Any]]) -> list[bytes]:
    """Seal entries anew, as a forger would who knows how a ledger is written."""
    head, sealed = Head(), []
    for entry in entries:
        body = {k: v for k, v in entry.items() if k not in ("number", "previous", "sha256")}
        line, head = seal(body, head)
        sealed.append(line.encode())
    return sealed


def test_a_sound_ledger_says_what_its_entries_make(run: RunFolder) -> None:
    found = verify(run)
    assert has_ledger(run)
    assert (len(found.entries), found.rounds, found.processes) == (7, 3, 1)
    assert found.open == () and found.unprotected == 0 and found.vouched == 7
    quick, tight = found.bounds()["client"]
    history = {sampled(0.5, gaussian(2.0)): 3}
    assert quick == Accountant().fast(history, DELTA)
    assert tight == Accountant().tight(history, DELTA) and tight.epsilon <= quick.epsilon


def test_any_byte_that_changes_is_seen(run: RunFolder) -> None:
    data = (run.path / "ledger.jsonl").read_bytes()
    rng = Seeds(1).numpy()
    ends = {0, len(data) - 1, len(data) - 2, data.index(b"\n"), data.rindex(b"\n", 0, -1) + 1}
    places = sorted({*np.linspace(0, len(data) - 1, FLIPS).astype(int).tolist(), *ends})
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1 << int(rng.integers(8))
        (run.path / "ledger.jsonl").write_bytes(changed)
        with pytest.raises(LedgerError, match=r"line \d+"):
            verify(run)


@pytest.mark.parametrize("place", range(7))
@pytest.mark.parametrize("change", ["left out", "twice", "moved", "put in"])
def test_lines_left_out_put_in_or_moved_are_seen(run: RunFolder, place: int, change: str) -> None:
    before = lines(run)
    if change == "left out":
        write(run, before[:place] + before[place + 1 :])
    elif change == "twice":
        write(run, before[: place + 1] + before[place:])
    elif change == "moved":
        other = place - 1 if place else 1
        before[place], before[other] = before[other], before[place]
        write(run, before)
    else:
        entry = json.loads(before[place])
        head = Head(place, entry["previous"])
        forged, _ = seal({"status": "reserved", "round": 9}, head)
        write(run, [*before[:place], forged.encode(), *before[place:]])
    with pytest.raises(LedgerError, match=r"line \d+|lacks entries"):
        verify(run)


@pytest.mark.parametrize("left", range(7))
def test_a_tail_cut_off_is_seen(run: RunFolder, left: int) -> None:
    write(run, lines(run)[:left])
    with pytest.raises(LedgerError, match=r"lacks entries|holds no entry"):
        verify(run)


def test_a_ledger_that_is_gone_is_missed(run: RunFolder) -> None:
    (run.path / "ledger.jsonl").unlink()
    assert has_ledger(run)
    with pytest.raises(LedgerError, match="cannot be read"):
        verify(run)


def test_an_epsilon_stated_too_low_is_seen_in_a_chain_sealed_anew(run: RunFolder) -> None:
    entries = [json.loads(line) for line in lines(run)]
    for entry in entries[3:]:
        for item in entry["spent"]:
            item["epsilon"] /= 2
    write(run, resealed(entries))
    with pytest.raises(LedgerError, match="line 4: entry 3 states"):
        verify(run)


def test_where_an_epsilon_differs_other_libraries_are_named(run: RunFolder) -> None:
    entries = [json.loads(line) for line in lines(run)]
    entries[0]["terms"]["versions"]["scipy"] = "1.0"
    write(run, resealed(entries))
    with pytest.raises(LedgerError) as caught:
        verify(run)
    assert "scipy 1.0" not in str(caught.value)  # The commit vouches for other lines.
    entries[3]["spent"][0]["epsilon"] *= 2
    write(run, resealed(entries))
    with pytest.raises(LedgerError, match=r"line 4: .* written with scipy 1\.0, here"):
        verify(run)


def test_a_smaller_charge_is_seen_though_everything_is_made_to_fit(run: RunFolder) -> None:
    entries = [json.loads(line) for line in lines(run)]
    quiet, rounds = gaussian(8.0), [0, 1, 1, 2, 2, 3, 3]
    for entry, count in zip(entries[1:], rounds[1:], strict=True):
        for charge in entry["charges"]:
            event = json.loads(charge["event"])
            event["of"]["noise"] = 8.0
            charge["event"] = json.dumps(event, separators=(",", ":"), sort_keys=True)
        spent = Accountant().fast({sampled(0.5, quiet): count}, DELTA)
        entry["spent"] = [{"unit": "client", "epsilon": spent.epsilon, "bound": spent.method}]
    write(run, resealed(entries))
    # The entries agree with each other; the commit vouches for others.
    with pytest.raises(LedgerError, match="lacks entries: the last commit vouches for 7 lines"):
        verify(run)
    shutil.rmtree(run.checkpoints)
    with pytest.raises(LedgerError, match="lacks entries"):
        verify(run)
    result = run.result()
    assert result is not None
    run.write_result({key: value for key, value in result.items() if key != "ledger"})
    assert verify(run).vouched == 0, "what nothing vouches for anew can be forged whole"


def test_a_ledger_of_other_settings_is_seen(run: RunFolder) -> None:
    config = run.config()
    config["phases"]["train"]["privacy"]["noise"] = 9.0
    (run.path / "config.json").write_text(json.dumps(config))
    with pytest.raises(LedgerError, match="opened for another configuration"):
        verify(run)


def test_what_was_reserved_and_never_settled_is_told_and_spent(run: RunFolder) -> None:
    entries = [json.loads(line) for line in lines(run)]
    again = {**entries[5], "round": 4}
    spent = Accountant().fast({sampled(0.5, gaussian(2.0)): 4}, DELTA)
    again["spent"] = [{"unit": "client", "epsilon": spent.epsilon, "bound": spent.method}]
    write(run, resealed([*entries, again]))
    found = verify(run)
    assert found.open == ((4, "train"),) and found.rounds == 3 and found.vouched == 7
    assert found.account.worst(Scope("client"), DELTA).epsilon == pytest.approx(spent.epsilon)


def test_an_open_release_is_counted(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    open_terms = {**TERMS, "allow_unprotected": True}
    evaluate = {"clients_every": 2, "server_every": 1, "each": False}
    federate(LeastSquares(), folder, phases=PHASES, privacy=open_terms, evaluate=evaluate)
    found = verify(RunFolder(folder))
    assert found.unprotected == 1
    assert math.isinf(found.bounds()["client"][1].epsilon)


def test_a_run_that_protects_nobody_has_no_ledger(tmp_path: Path) -> None:
    federate(LeastSquares(), tmp_path / "open", rounds=1)
    assert not has_ledger(RunFolder(tmp_path / "open"))

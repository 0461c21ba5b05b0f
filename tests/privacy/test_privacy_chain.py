"""A ledger's file: a byte that changes is told, and so is a line that is missing or put in."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedalt.errors import LedgerError
from fedalt.privacy.chain import Chain, Head, mend, read_chain, seal
from fedalt.privacy.ranges import from_ranges, to_ranges

LINES = 6


@pytest.fixture
def path(tmp_path: Path) -> Path:
    chain = Chain(tmp_path / "ledger.jsonl")
    for i in range(LINES):
        chain.append({"status": "reserved", "round": i, "spent": [{"epsilon": 0.1 * i}]})
    return tmp_path / "ledger.jsonl"


def read(path: Path) -> list[dict[str, Any]]:
    return [entry for entry, _ in read_chain(path)]


def test_what_was_written_is_read(path: Path) -> None:
    entries = read(path)
    assert [entry["round"] for entry in entries] == list(range(LINES))
    assert entries[3]["previous"] == entries[2]["sha256"]


def test_a_chain_goes_on_where_it_ended(path: Path) -> None:
    *_, (_, head) = read_chain(path)
    assert Chain(path, head).append({"round": 7}, {"round": 8}) == [LINES, LINES + 1]
    assert len(read(path)) == LINES + 2


def test_every_byte_counts(path: Path) -> None:
    data = path.read_bytes()
    for place in range(len(data)):
        for change in (1, 0x20):
            altered = bytearray(data)
            altered[place] ^= change
            path.write_bytes(bytes(altered))
            with pytest.raises(LedgerError, match="line"):
                read(path)


@pytest.mark.parametrize("place", range(LINES - 1))
def test_lines_left_out_moved_or_put_in_are_told(path: Path, place: int) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    swapped = [*lines]
    swapped[place], swapped[place + 1] = swapped[place + 1], swapped[place]
    for altered in (
        lines[:place] + lines[place + 1 :],
        swapped,
        lines[: place + 1] + lines[place:],
    ):
        path.write_bytes(b"".join(altered))
        with pytest.raises(LedgerError, match=r"line \d"):
            read(path)


def test_a_line_put_in_with_a_sound_checksum_breaks_the_next(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    entries = read(path)
    forged, _ = seal({"status": "reserved", "round": 99}, Head(2, entries[1]["sha256"]))
    path.write_text("".join([*lines[:2], forged, *lines[2:]]))
    with pytest.raises(LedgerError, match="line 4: it is entry 2 and follows another one"):
        read(path)


def test_a_line_that_a_crash_cut_is_mended(path: Path) -> None:
    with path.open("ab") as handle:
        handle.write(b'{"status":"rese')
    with pytest.raises(LedgerError, match="the line has no end"):
        read(path)
    assert mend(path) and not mend(path)
    assert len(read(path)) == LINES


def test_a_full_disk_leaves_whole_lines(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    *_, (_, head) = read_chain(path)
    chain = Chain(path, head)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(os, "fsync", full)
        chain.append({"round": 6})
    assert len(read(path)) == LINES
    chain.append({"round": 6})
    assert len(read(path)) == LINES + 1


@pytest.mark.parametrize(
    ("sites", "text"),
    [([], ""), ([4], "4"), ([0, 1, 2, 3], "0-3"), ([7, 0, 1, 9, 8], "0-1,7-9"), ([5, 5], "5")],
)
def test_ranges_name_sites(sites: list[int], text: str) -> None:
    assert to_ranges(np.array(sites, np.int64)) == text
    assert from_ranges(text, 10).tolist() == sorted(set(sites))


@pytest.mark.parametrize("text", ["3-1", "x", "1,,2", "10", "0-10", "-1", "1-2-3"])
def test_ranges_of_no_such_sites_are_refused(text: str) -> None:
    with pytest.raises(LedgerError, match="no range of the 10 sites"):
        from_ranges(text, 10)

"""Very many clients cost what takes part: memory, start and rounds do not follow their number."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "many_clients.py"


def run(folder: Path, clients: int, rounds: int, *words: str) -> dict[str, Any]:
    child = subprocess.run(
        [sys.executable, str(SCRIPT), str(clients), str(rounds), str(folder), *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    found: dict[str, Any] = json.loads(child.stdout)
    return found


def test_twenty_thousand_clients_take_little_more_memory_than_two_hundred(tmp_path: Path) -> None:
    few, many = run(tmp_path / "few", 200, 2), run(tmp_path / "many", 20_000, 2)
    assert many["peak_mib"] < few["peak_mib"] + 40
    assert many["start_s"] < few["start_s"] + 1.0


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], ["persist"]])
def test_a_hundred_thousand_clients_fit_in_a_gibibyte(words: list[str], tmp_path: Path) -> None:
    few = run(tmp_path / "few", 1000, 10, *words)
    many = run(tmp_path / "many", 100_000, 10, *words)
    assert many["peak_mib"] < 1024 and many["peak_mib"] < few["peak_mib"] + 150
    # Bounds no machine's noise reaches: asked by message, 100 000 sites take 10 s more, and
    # whatever walks through all of them in a round takes twice a client's work.
    assert many["start_s"] < few["start_s"] + 2.0
    assert many["ms"] < 2 * few["ms"]

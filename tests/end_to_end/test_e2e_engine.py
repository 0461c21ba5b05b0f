"""Settings of the engine as a user meets them: told, shown again, and refused."""

from __future__ import annotations

import json

import pytest
from e2e_command import DIGITS, Command


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("engine.mode=compild", "unknown mode 'compild' (did you mean 'compiled'?)"),
        ("engine.mode=batched:0", "engine.mode=batched:0: a number of clients, 1 or more"),
        ("engine.mode=compiled:4", "may follow batched and batched-compiled only"),
        ("engine.workers=0", "engine.workers=0: must be at least 1"),
        ("engine.threads=0", "engine.threads=0: must be at least 1"),
        ("engine.precision=float8", "must be 'float32' or 'bfloat16'"),
        ("engine.state_limit_mb=0", "engine.state_limit_mb=0: must be at least 1"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(
    command: Command, override: str, said: str
) -> None:
    told = command("simulate", *DIGITS, override)
    assert told.code == 2 and said in told.err
    assert not command.runs()


def test_workers_do_not_share_a_gpu(command: Command) -> None:
    told = command("simulate", *DIGITS, "engine.workers=2", "engine.device=cuda")
    assert told.code == 2 and "engine.workers=2: must be 1 on a GPU" in told.err


def test_mode_workers_and_profile_are_told_and_shown_again(command: Command) -> None:
    settings = ("engine.mode=batched", "engine.workers=2", "profile=true", "report=null")
    told = command("simulate", *DIGITS, *settings)
    assert told.code == 0, told.err
    assert "mode    train: batched:1 (told)" in told.out
    for part in ("where the time went", "dispatch", "compute", "admission", "aggregation"):
        assert part in told.out
    assert "2 rounds, 4 client-rounds" in told.out
    (run,) = command.runs()
    assert command("runs", "show", run.name).out.endswith(told.out[-200:])
    result = json.loads((run / "result.json").read_text())
    assert result["engine"]["gradient"]["train"]["mode"] == "batched:1"


def test_any_number_of_workers_ends_on_the_same_weights(command: Command) -> None:
    found = {
        command("simulate", *DIGITS, "report=null", f"engine.workers={n}", "--json").json()[
            "weights_sha256"
        ]
        for n in (1, 2)
    }
    assert len(found) == 1


def test_without_a_profile_there_is_no_table_of_times(command: Command) -> None:
    told = command("simulate", *DIGITS, "report=null")
    assert "where the time went" not in told.out

"""Previews: counts of touches, the text and the picture."""

from __future__ import annotations

from pathlib import Path

import pytest
from alternation_toys import SITES

from fedalt.alternation import (
    Block,
    BlockMap,
    History,
    Phase,
    Planner,
    Preview,
    Schedule,
    Selector,
    above,
    adaptive,
    below,
    chain,
    choose,
    cycle,
    nest,
    parallel,
    preview_schedule,
    proportional,
    repeat,
    text_timeline,
    until,
    when,
)
from fedalt.alternation.plot import PALETTE, SEVERAL, draw_timeline
from fedalt.alternation.timeline import runs
from fedalt.errors import ScheduleError

ODD = Selector(where={"d0": ("x",)})
ENCODER, HEAD = Phase("enc", train=("encoder",), clients=ODD), Phase("head", train=("head",))
WHOLE = Phase("whole")


def test_touches_count_rounds() -> None:
    seen = preview_schedule(cycle(ENCODER, HEAD, parallel(ENCODER, WHOLE)), 0, SITES, 9)
    assert not seen.ended
    # Round 3 of each three trains everything everywhere, twice over at odd sites.
    assert [seen.touches(1, block) for block in ("encoder", "head", "all")] == [6, 6, 9]
    assert [seen.touches("site-0", block) for block in ("encoder", "head", "all")] == [3, 6, 6]
    assert seen.touches(SITES[0], "encoder") == 3
    assert seen.phase_rounds() == {"enc": (1, 3, 4, 6, 7, 9), "head": (2, 5, 8), "whole": (3, 6, 9)}
    assert seen.site_rounds("enc") == 6 * 4


def test_touches_follow_blocks_that_share_arrays() -> None:
    blocks = BlockMap.of(
        ["encoder.a", "encoder.b", "head.a"],
        [Block("encoder", ("encoder/*",)), Block("first", ("*/a",)), Block("head", ("head/*",))],
    )
    phase = Phase("p", train=("first",))
    seen = preview_schedule(repeat(phase, 2), 0, SITES, 9, blocks)
    assert [seen.touches(0, b) for b in ("first", "encoder", "head", "none")] == [2, 2, 2, 0]
    only = preview_schedule(Phase("p", train=("head",)), 0, SITES, 9, blocks)
    assert [only.touches(0, b) for b in ("first", "encoder")] == [1, 0]


def test_touches_of_a_client_that_alternates() -> None:
    seen = preview_schedule(nest(WHOLE, chain(ENCODER, HEAD), local=True), 0, SITES, 9)
    assert [seen.touches(0, b) for b in ("encoder", "head", "other")] == [1, 1, 0]


def test_preview_is_what_a_run_plans() -> None:
    schedule = choose(ENCODER, HEAD, WHOLE)
    seen = preview_schedule(schedule, 3, SITES, 20)
    planner = Planner(schedule, 3, SITES)
    assert list(seen.rounds) == [planner.plan(r, History()) for r in range(1, 21)]


@pytest.mark.parametrize(
    ("schedule", "note"),
    [
        (
            until(HEAD, below("m", 1), 7),
            "until m < 1: needs a run's metrics, shown running to its 7",
        ),
        (until(HEAD, below("m", 1)), "shown running to the end of this preview"),
        (when(above("m", 1), HEAD, WHOLE), "when m > 1: needs a run's metrics, shown as not true"),
        (adaptive(HEAD, WHOLE, policy=proportional("m")), "shown with equal weights"),
    ],
)
def test_what_needs_a_run_is_said(schedule: Schedule, note: str) -> None:
    assert note in text_timeline(preview_schedule(schedule, 0, SITES, 20))


def test_a_supposed_history_steers_the_preview() -> None:
    schedule = chain(until(HEAD, below("m", 1), 7), WHOLE)
    course = History(({"m": 2.0}, {"m": 0.5}))
    seen = preview_schedule(schedule, 0, SITES, 20, history=course)
    assert [plan.parts[0].phase.name for plan in seen.rounds] == ["head", "head", "whole"]
    assert seen.ended
    assert "supposed" in text_timeline(seen)


def test_text_by_hand() -> None:
    seen = preview_schedule(chain(ENCODER, repeat(HEAD, 3)), 0, SITES[:2], 9)
    assert text_timeline(seen).splitlines() == [
        "4 rounds, 2 phases, 2 sites; the schedule ends there",
        "",
        "      1  4",
        "enc   █···  1 round (1), 1 visit",
        "head  ·███  3 rounds (2–4), 6 visits",
        "",
        "rounds touched    any  encoder   head",
        "site-0              3        0      3",
        "site-1              4        1      3",
    ]


def test_text_compresses_long_schedules() -> None:
    long = chain(repeat(ENCODER, 500), repeat(chain(ENCODER, HEAD), 250))
    lines = text_timeline(preview_schedule(long, 0, SITES, 2000), width=90).splitlines()
    assert max(map(len, lines)) <= 90
    encoder = next(line for line in lines if line.startswith("enc"))
    assert "██▒▒" in encoder and "750 rounds (1–501, 503, …)" in encoder
    assert any(line.startswith("a column is ") for line in lines)


def test_text_of_nothing() -> None:
    assert "no round" in text_timeline(preview_schedule(repeat(HEAD, 0), 0, SITES, 5))


def test_runs() -> None:
    assert runs([1, 2, 3, 5, 7, 8]) == [(1, 3), (5, 5), (7, 8)]
    assert runs([]) == []


def seen_many() -> Preview:
    return preview_schedule(cycle(ENCODER, parallel(HEAD, WHOLE)), 0, SITES, 12)


def test_picture(tmp_path: Path) -> None:
    from matplotlib.image import imread

    path = draw_timeline(seen_many(), tmp_path / "timeline.png", title="cycle")
    picture = imread(path)[:, :, :3]
    assert picture.shape[0] > 200 and picture.shape[1] == 1300

    def share_of(colour: str) -> float:
        wanted = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        return float((abs(picture - wanted).max(axis=2) < 0.01).mean())

    share = share_of(PALETTE[0])
    # Half the rounds of one of three phases, and half of the sites in half of the rounds.
    assert 0.1 < share < 0.4
    # In the other half of the rounds every site has two works at once.
    assert 0.1 < share_of(SEVERAL) < 0.4


def test_no_picture_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(ScheduleError, match="no round to draw"):
        draw_timeline(preview_schedule(repeat(HEAD, 0), 0, SITES, 5), tmp_path / "x.png")

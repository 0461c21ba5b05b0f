"""Names that would be mixed up with others are refused where they are given."""

from __future__ import annotations

import pytest

from fedalt.alternation import Block, Phase, parse_schedule
from fedalt.alternation.phase import RESERVED
from fedalt.errors import ScheduleError


@pytest.mark.parametrize("name", RESERVED)
def test_names_of_the_loops_own_metrics_are_reserved(name: str) -> None:
    with pytest.raises(ScheduleError, match=f"phases.{name}: .*choose another"):
        parse_schedule({name: {}}, name)


@pytest.mark.parametrize("field", ["name", "modality", "task", "branch"])
def test_the_separator_of_ledger_cells_is_refused(field: str) -> None:
    with pytest.raises(ScheduleError, match="must not contain"):
        Phase(**{"name": "p", field: "a|b"})


def test_blocks_likewise() -> None:
    with pytest.raises(ScheduleError, match="must not contain"):
        Block("a|b", ("*",))


def test_integers_beyond_64_bits_are_refused_before_they_travel() -> None:
    Phase("p", params={"n": 2**63 - 1})
    with pytest.raises(ScheduleError, match=r"params.n is .*beyond 64 bits"):
        Phase("p", params={"n": 2**63})

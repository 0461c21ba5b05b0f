"""Where a round's time goes, told by name."""

from __future__ import annotations

import pytest
from canned_rounds import one_round, rows_of, stacks

from fedalt.server.stopwatch import OFF, Stopwatch


def test_a_stopwatch_tells_a_rounds_spans_and_begins_again() -> None:
    watch = Stopwatch()
    one_round(rows_of(stacks()), watch=watch)
    spans = watch.take()
    assert list(spans) == ["dispatch", "compute", "admission", "aggregation"]
    assert all(seconds > 0.0 for seconds in spans.values())
    assert watch.take() == {}


def test_spans_of_one_name_add_up_also_when_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([1.0, 2.5, 10.0, 14.0])
    monkeypatch.setattr("fedalt.server.stopwatch.time.perf_counter", lambda: next(clock))
    watch = Stopwatch()
    with watch.span("a"):
        pass
    with pytest.raises(KeyError), watch.span("a"):
        raise KeyError
    assert watch.take() == {"a": 5.5}


def test_a_stopwatch_that_is_off_tells_nothing() -> None:
    with OFF.span("a"):
        pass
    assert OFF.take() == {}

"""The page on alternation says what is so: its code runs, and every YAML form is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedalt.alternation import parse_schedule

PAGE = (Path(__file__).parents[3] / "docs" / "alternation.md").read_text(encoding="utf-8")
# What stands for something else in the table of combinators.
SHORT = {
    "[…]": "[1, 2]",
    "stop: c": "stop: {rounds: 2}",
    "if: c": "if: {rounds: 2}",
    "policy: p": "policy: {proportional: {metric: loss}}",
    ": n}": ": 3}",
}
ROWS = re.findall(r"^\| `([a-z_]+: .*?)` \|", PAGE, re.MULTILINE)


def test_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(code, names)
    assert (tmp_path / "timeline.png").stat().st_size > 1000
    assert names["plan"].parts[0].phase.name == "warm-up"


def test_yaml_is_read() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    data = yaml.safe_load(text)
    schedule = parse_schedule(data["phases"], data["schedule"])
    assert {phase.name for phase in schedule.phases()} == set(data["phases"])


def test_all_combinators_are_listed() -> None:
    assert len(ROWS) == 16


@pytest.mark.parametrize("row", ROWS)
def test_table_is_read(row: str) -> None:
    for short, full in SHORT.items():
        row = row.replace(short, full)
    assert parse_schedule({"x": {}, "y": {}}, yaml.safe_load(f"{{{row}}}")).phases()

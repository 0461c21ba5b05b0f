"""What the documentation shows runs, and what it points to exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fedalt.cli.main import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md"]
PAGES += sorted((ROOT / "docs").rglob("*.md")) + sorted((ROOT / "scenarios").rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_exist(page: Path) -> None:
    text = page.read_text()
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    missing = [
        link
        for link in links
        if link and not link.startswith("http") and not (page.parent / link).exists()
    ]
    named = re.findall(r"`((?:tests|docs|scenarios|proto|server|clients|fedalt)/[\w./-]+)`", text)
    missing += [path for path in named if not (ROOT / path).exists()]
    assert not missing


def test_the_scenario_of_ones_own_runs_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "own_scenario.md").read_text()
    found = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert found is not None
    (tmp_path / "digits_two").mkdir()
    (tmp_path / "digits_two" / "scenario.yaml").write_text(found[1])
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "./digits_two"]) == 0
    assert "body  ██·██·" in capsys.readouterr().out
    commands = re.findall(r"^fedalt simulate (\./digits_two.*?)(?:\s+#.*)?$", page, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        words = [word.strip("'") for word in re.findall(r"'[^']*'|\S+", command)]
        assert main(["simulate", *words, "task.rows=200", "rounds=3", "progress=false"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"metric +main +proximal", shown), "variants stand beside the run"

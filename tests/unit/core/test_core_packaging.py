"""What is installed is what stands in the repository, and imports point one way."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]
ROOMS = {"fedalt": "fedalt", "clients": "fedalt.clients", "server": "fedalt.server"}
ROOMS["scenarios"] = "fedalt.scenarios"


def sources() -> list[tuple[str, Path]]:
    """Every source file with the room it stands in."""
    return [(room, path) for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def test_pyproject_lists_every_package() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = set()
    for room, path in sources():
        inner = path.parent.relative_to(ROOT / room).parts
        found.add(".".join([ROOMS[room], *inner]))
    assert sorted(listed) == sorted(found)


def test_every_package_has_a_docstring() -> None:
    missing = [
        str(path.relative_to(ROOT))
        for _, path in sources()
        if "_pb2" not in path.name and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not missing, f"modules without a docstring: {missing}"


def test_yaml_and_readme_are_installed_with_each_scenario() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "package-data"
    ]
    for folder in (ROOT / "scenarios").iterdir():
        if (folder / "scenario.yaml").exists():
            assert (folder / "README.md").exists(), f"{folder.name} has no README"
            assert {"*.yaml", "*.md"} <= set(data[f"fedalt.scenarios.{folder.name}"])


def test_every_scenario_opens_with_the_command_that_runs_it() -> None:
    for path in (ROOT / "scenarios").glob("*/scenario.yaml"):
        assert path.read_text().startswith(f"# fedalt simulate {path.parent.name}\n"), path


ALLOWED = {
    "fedalt": {"fedalt"},
    "clients": {"fedalt", "clients"},
    "server": {"fedalt", "server"},
    "scenarios": {"fedalt", "scenarios"},
}


def imported(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.append(node.module)
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return names


def test_imports_point_one_way() -> None:
    wrong = []
    for room, path in sources():
        for name in imported(path):
            parts = name.split(".")
            if parts[0] != "fedalt":
                continue
            target = parts[1] if len(parts) > 1 and parts[1] in ROOMS else "fedalt"
            if target not in ALLOWED[room]:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_the_command_line_starts_without_heavy_imports() -> None:
    """Help needs no torch: importing it costs more than a whole small run."""
    code = (
        "import sys\n"
        "from fedalt.cli.main import parser\n"
        "parser()\n"
        "heavy = {'torch', 'matplotlib', 'tensorboard', 'ray', 'monai', 'opacus', 'sklearn'}\n"
        "heavy.add('flwr')\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"

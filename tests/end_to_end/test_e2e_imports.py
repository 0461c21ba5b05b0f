"""A command imports what it uses and no more: what is slow to import is paid by who needs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from fedalt.cli.main import main
with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as said:
    try:
        code = main(sys.argv[1:])
    except SystemExit as end:
        code = end.code
print(json.dumps([code, said.getvalue(), sorted({name.partition(".")[0] for name in sys.modules}),
                  [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]]))
"""

UNUSED = {
    "ray",
    "monai",
    "nibabel",
    "opacus",
    "matplotlib",
    "tensorboard",
    "sklearn",
    "scipy",
    "river",
    "geoopt",
    "pooch",
    "pandas",
}
"""Slow to import, and used by some scenarios, reports or settings alone."""

# Without MNIST the digits are those that come with scikit-learn.
DIGITS = UNUSED if os.environ.get("FEDALT_DATA") else UNUSED - {"sklearn", "scipy", "pandas"}


def imported(*words: str) -> set[str]:
    """Run a command in a process of its own and return the packages it imported."""
    child = subprocess.run(
        [sys.executable, "-c", CHILD, *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    code, said, packages, summaries = json.loads(child.stdout.splitlines()[-1])
    assert code == 0, said
    assert not summaries
    return set(packages)


@pytest.mark.parametrize("words", ["--help", "simulate --help", "plan --help", "runs --help"])
def test_help_imports_neither_torch_nor_flower(words: str) -> None:
    found = imported(*words.split())
    assert not found & {"torch", "flwr", "numpy", "hydra", "grpc", "rich"} and not found & UNUSED


@pytest.mark.parametrize("words", ["scenarios", "scenarios fedavg_mnist", "runs list"])
def test_lists_import_neither_torch_nor_flower(words: str, tmp_path: Path) -> None:
    found = imported(*words.split())
    assert not found & {"torch", "flwr", "grpc"} and not found & UNUSED


def test_a_simulation_imports_no_more_than_it_uses(tmp_path: Path) -> None:
    settings = ["rounds=2", "task.clients=10", "task.rows=200", "report=null", f"out={tmp_path}"]
    found = imported("simulate", "fedavg_mnist", *settings)
    assert {"torch", "flwr"} <= found and not found & DIGITS


def test_a_plan_imports_no_more_than_it_uses() -> None:
    assert not imported("plan", "fedavg_mnist") & DIGITS


@pytest.mark.slow
def test_a_plan_judges_nothing() -> None:
    """The first subspace is drawn on the manifold, but no score is computed."""
    assert not imported("plan", "federated_pca") & (UNUSED - {"geoopt", "scipy"})

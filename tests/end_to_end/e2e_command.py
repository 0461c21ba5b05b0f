"""The command line in this process: its exit code, what it printed, and the runs it left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fedalt.cli.main import main

PCA = (
    *("federated_pca", "task.data=synthetic", "task.rank=6", "task.feature=null", "compare=[]"),
    *("vars.consensus_rounds=5", "progress=false"),
)
# scikit-learn's digits: no folder is named, and nothing is downloaded.
DIGITS = (
    *("fedavg_mnist", "task.rows=500", "rounds=2", "task.clients=5", "task.model=logistic"),
    *("phases.train.clients.count=2", "progress=false"),
)


@dataclass(frozen=True)
class Told:
    """What a command answered."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        def refuse(name: str) -> None:
            raise AssertionError(f"{name} is not JSON")

        return json.loads(self.out, parse_constant=refuse)


class Command:
    """Runs commands in an empty folder, where no data folder is named."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str) -> Told:
        self._capsys.readouterr()
        try:
            code = main(list(words))
        except SystemExit as end:
            code = int(end.code or 0)
        told = self._capsys.readouterr()
        return Told(code, told.out, told.err)

    @staticmethod
    def runs() -> list[Path]:
        """The runs that lie beneath ./runs."""
        return sorted(Path("runs").iterdir()) if Path("runs").exists() else []


def spawn(*words: str, **options: Any) -> subprocess.Popen[str]:
    """Start the command as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "fedalt", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **options,
    )

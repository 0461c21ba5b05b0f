"""Who is measured: each engine's runner, its environment and the works it does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peers import PeerMissing, install, python_of

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

CORE = ("logistic", "mlp", "cnn")
PCA = ("pca-grassmann", "pca-covariance")
SCALE = ("scale-1000", "scale-10000", "scale-100000")
CONTINUAL = "continual"
WORKS = (*CORE, "unet", *PCA, *SCALE, CONTINUAL)
OF_ITS_OWN = {
    **{("run_fedalt.py", work): "run_fedalt_pca.py" for work in PCA},
    ("run_fedalt.py", CONTINUAL): "run_fedalt_continual.py",
    ("run_bare.py", CONTINUAL): "run_bare_continual.py",
}
"""Runners of works that are not federated averaging of images, by the engine's usual one."""

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
ONE_THREAD = dict.fromkeys(THREADS, "1")
LIMIT_S = 1800
"""A run that takes longer is given up."""


class RunFailed(Exception):
    """An engine's process brought no result; the text is the end of what it said."""


@dataclass(frozen=True)
class Engine:
    """An engine by name: its runner, the peer's environment (none: fedalt's own), its options."""

    name: str
    script: str
    works: tuple[str, ...]
    peer: str = ""
    options: tuple[str, ...] = ()

    def python(self, make: bool = False) -> Path:
        """Return its Python; raises :class:`PeerMissing` where there is none."""
        if not self.peer:
            return Path(sys.executable)
        return install(self.peer) if make else python_of(self.peer)

    def run(self, work: str, rounds: int | None) -> dict[str, Any]:
        """Run once in a fresh process and return its line; raises :class:`RunFailed`."""
        script = OF_ITS_OWN.get((self.script, work), self.script)
        command = [str(self.python()), "-W", "ignore", str(HERE / script), work, *self.options]
        if rounds:
            command += ["--rounds", str(rounds)]
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env={**os.environ, **ONE_THREAD},
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise RunFailed(f"no result after {LIMIT_S} s") from error
        lines = [line for line in done.stdout.splitlines() if line.startswith('{"engine"')]
        if done.returncode or not lines:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise RunFailed(f"exit code {done.returncode}: {' | '.join(said[-3:])}")
        found: dict[str, Any] = json.loads(lines[-1])
        return found


ENGINES = {
    engine.name: engine
    for engine in (
        Engine("fedalt", "run_fedalt.py", WORKS),
        Engine("fedalt+FedAvg", "run_fedalt.py", CORE, options=("--strategy", "fedavg")),
        Engine("limit", "run_limit.py", CORE),
        Engine("bare", "run_bare.py", (*CORE, "unet", CONTINUAL)),
        Engine("pfl", "run_pfl.py", CORE, peer="pfl"),
        Engine("fedjax", "run_fedjax.py", CORE, peer="fedjax"),
        Engine("flower-ray", "run_flower_ray.py", CORE, peer="flower"),
        Engine("avalanche", "run_avalanche.py", (CONTINUAL,), peer="avalanche"),
    )
}
OWN = tuple(name for name, engine in ENGINES.items() if not engine.peer)
"""What runs without any peer's environment."""


def find_engine(name: str) -> Engine:
    """Return an engine; ``fedalt:mode=sequential,workers=2`` is fedalt with engine settings."""
    base, _, settings = name.partition(":")
    if base not in ENGINES:
        raise SystemExit(f"unknown engine '{name}'; there are {', '.join(ENGINES)}")
    if not settings:
        return ENGINES[base]
    if not base.startswith("fedalt"):
        raise SystemExit(f"engine '{name}': only fedalt takes settings after a colon")
    options = ["--name", name]
    for pair in settings.split(","):
        options += ["--engine", pair]
    engine = ENGINES[base]
    return replace(engine, name=name, options=(*engine.options, *options))


__all__ = ["ENGINES", "OWN", "WORKS", "Engine", "PeerMissing", "RunFailed", "find_engine"]

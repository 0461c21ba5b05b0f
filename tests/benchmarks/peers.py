"""The peers' own environments: made on request under .bench/, and used again afterwards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / ".bench"

# torch comes first and pinned: a machine without a GPU needs none of the packages for one.
TORCH = "torch==2.13.0"
PEERS: dict[str, list[list[str]]] = {
    "pfl": [[TORCH], ["pfl[pytorch]==0.6.0"]],
    # fedjax calls jax.tree_map, which 0.5 was the last to have.
    "fedjax": [["fedjax==0.0.17", "jax==0.5.3", "jaxlib==0.5.3"]],
    "flower": [[TORCH], ["flwr[simulation]==1.41.0"]],
    # Without their dependencies, so that torch stays as it is (see torchvision_no_ops.py);
    # then what avalanche imports, which is all it asks for but scikit-learn.
    "avalanche": [
        [TORCH],
        ["--no-deps", "torchvision==0.28.0", "avalanche-lib==0.6.0"],
        [
            TORCH, "numpy==2.4.6", "pillow==13.0.0", "typing_extensions==4.16.0",
            "psutil==7.2.2", "packaging==25.0", "dill==0.4.1", "tqdm==4.70.1",
            "matplotlib==3.11.2", "torchmetrics==1.9.0", "GPUtil==1.4.0", "gdown==6.5.1",
            "qpsolvers==4.13.0", "tensorboard==2.21.0", "wandb==0.31.0", "pytorchcv==0.0.74",
        ],
    ],
}  # fmt: skip
"""What pip installs, step by step."""


class PeerMissing(Exception):
    """A peer cannot be run here; the text says why."""


def python_of(peer: str) -> Path:
    """Return the Python of a peer's environment; raises :class:`PeerMissing` if it has none."""
    python = PLACE / f"venv-{peer}" / "bin" / "python"
    if _stamp(peer).is_file() and _stamp(peer).read_text() == _wanted(peer):
        return python
    raise PeerMissing(f"{peer} has no environment yet: run make bench-peers")


def install(peer: str) -> Path:
    """Make a peer's environment unless it is there; raises :class:`PeerMissing` if it fails."""
    try:
        return python_of(peer)
    except PeerMissing:
        print(f"== setting up {peer} (once; some minutes)", flush=True)
    folder = PLACE / f"venv-{peer}"
    _call([sys.executable, "-m", "venv", "--clear", str(folder)], peer)
    python = folder / "bin" / "python"
    for packages in PEERS[peer]:
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _call([*pip, *packages], peer)
    _stamp(peer).write_text(_wanted(peer))
    return python


def _stamp(peer: str) -> Path:
    return PLACE / f"venv-{peer}" / "bench-packages.txt"


def _wanted(peer: str) -> str:
    return "\n".join(package for step in PEERS[peer] for package in step) + "\n"


def _call(command: list[str], peer: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        told = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
        raise PeerMissing(f"{peer} cannot be installed: {' '.join(told[-3:]) or 'no reason given'}")

"""Kernels by name: what a phase's ``kernel`` may say."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from fedalt.clients.kernels.base import Kernel
from fedalt.errors import ConfigError, nearest

# Modules are imported when a kernel is first used: a site that computes covariances needs
# none of the gradient code.
_PLACES = {
    "gradient": "fedalt.clients.kernels.gradient:GradientKernel",
    "evaluate": "fedalt.clients.kernels.evaluate:EvaluateKernel",
    "moments": "fedalt.clients.kernels.statistics:moments",
    "curvature": "fedalt.clients.kernels.statistics:curvature",
    "covariance": "fedalt.clients.kernels.statistics:covariance",
    "score_histogram": "fedalt.clients.kernels.statistics:score_histogram",
    "grassmann": "fedalt.clients.kernels.subspace:grassmann",
    "euclidean": "fedalt.clients.kernels.subspace:euclidean",
    "power": "fedalt.clients.kernels.subspace:power",
}

NAMES = tuple(sorted(_PLACES))


class KernelTable:
    """The kernels of one ClientApp, each made when first asked for and kept."""

    def __init__(self) -> None:
        self._made: dict[str, Kernel] = {}

    def __call__(self, name: str) -> Kernel:
        """Return a kernel; raises :class:`ConfigError` with the nearest name."""
        if name not in self._made:
            if name not in _PLACES:
                raise ConfigError(f"unknown kernel '{name}'{nearest(name, NAMES)}")
            module, _, attribute = _PLACES[name].partition(":")
            found = getattr(importlib.import_module(module), attribute)
            self._made[name] = found() if isinstance(found, type) else found
        return self._made[name]

    def export_facts(self) -> dict[str, Any]:
        """Return the facts of each kernel that has some, by kernel name."""
        facts = {
            name: kernel.export_facts()
            for name, kernel in sorted(self._made.items())
            if hasattr(kernel, "export_facts")
        }
        return {name: found for name, found in facts.items() if found}

    def import_facts(self, facts: Mapping[str, Any]) -> None:
        """Hand each kernel the facts that a former run's kernel of its name exported."""
        for name, found in facts.items():
            kernel = self(name)
            if hasattr(kernel, "import_facts"):
                kernel.import_facts(found)

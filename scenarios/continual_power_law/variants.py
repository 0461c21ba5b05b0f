"""Variants of a stream of images: what a task shows of them, and the classes that it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fedalt.errors import ConfigError, nearest
from fedalt.scenarios.continual_power_law import transforms
from fedalt.scenarios.continual_power_law.protocols import (
    Protocol,
    shared_classes,
    split_classes,
)
from fedalt.scenarios.continual_power_law.settings import Known, named, number
from fedalt.seeds import Seeds

VARIANTS: Known = {
    "permuted": {"first_identity": True},
    "rotated": {"max_angle": 180.0, "angles": None},
    "split": {"order": "given"},
}
PARTITIONS: Known = {
    "iid": {},
    "dirichlet": {"alpha": 0.3, "min_size": 1},
    "pathological": {"shards_per_client": 2},
}
ORDERS = ("given", "shuffled")
Batch = tuple[torch.Tensor, ...]
Transform = transforms.Unchanged | transforms.Permutations | transforms.Rotations


@dataclass(frozen=True)
class Variant:
    """The tasks of a stream: their names, what each makes of an image, and their classes."""

    names: tuple[str, ...]
    transform: Transform
    protocol: Protocol

    def rows_of(self, labels: np.ndarray, task: int) -> np.ndarray:
        """Return the places of those labels (n,) that are classes of the task."""
        return np.flatnonzero(self.protocol.table[task][labels] >= 0)

    def batch(
        self, images: torch.Tensor, labels: np.ndarray, task: int
    ) -> tuple[torch.Tensor, ...]:
        """Return images (n, pixels) uint8 and classes (n,) as the task shows them."""
        shown = self.transform(images.float().div_(255.0), task)
        outputs = torch.from_numpy(self.protocol.table[task][labels])
        if not self.protocol.task_known:
            return shown, outputs
        return shown, outputs, torch.full_like(outputs, task)


def read_variant(
    value: str | Mapping[str, Any],
    protocol: str,
    tasks: int,
    classes: int,
    side: int,
    seeds: Seeds,
) -> Variant:
    """Read the setting ``task.variant``; raises :class:`ConfigError`."""
    name, options = named(value, "task.variant", VARIANTS)
    if name == "split":
        if options["order"] not in ORDERS:
            raise ConfigError(
                f"task.variant 'split': unknown order '{options['order']}'"
                f"{nearest(options['order'], ORDERS)}"
            )
        shuffled = options["order"] == "shuffled"
        groups = split_classes(tasks, classes, shuffled, seeds.at("split"))
        names = tuple("-".join(map(str, group)) for group in groups)
        return Variant(names, transforms.Unchanged(), Protocol(protocol, groups, classes))
    shared = Protocol(protocol, shared_classes(tasks, classes), classes)
    if name == "permuted":
        orders = transforms.permutations(
            tasks, side * side, options["first_identity"], seeds.at("permutation")
        )
        return Variant(tuple(f"permutation {t}" for t in range(tasks)), orders, shared)
    angles = _angles(tasks, options)
    return Variant(tuple(f"{a:g}°" for a in angles), transforms.rotations(angles, side), shared)


def partition_rule(value: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Read the setting ``task.partition``; raises :class:`ConfigError`."""
    return named(value, "task.partition", PARTITIONS)


def _angles(tasks: int, options: Mapping[str, Any]) -> list[float]:
    given = options["angles"]
    if given is None:
        largest = number(options["max_angle"], "task.variant 'rotated': max_angle")
        return transforms.even_angles(tasks, largest)
    if not isinstance(given, list | tuple) or len(given) != tasks:
        raise ConfigError(
            f"task.variant 'rotated': angles is {given!r}, expected a list of {tasks} numbers, "
            "one for each of task.tasks"
        )
    angles = [number(angle, "task.variant 'rotated': an angle") for angle in given]
    transforms.check_angles(angles)
    return angles

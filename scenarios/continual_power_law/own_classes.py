"""Which classes the tasks of a user's own files have, and whether a protocol fits them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedalt.errors import ConfigError, DataError
from fedalt.scenarios.continual_power_law.protocols import Protocol, shared_classes
from fedalt.scenarios.continual_power_law.task_files import TaskFile, check_numbering


def own_protocol(name: str, files: Sequence[TaskFile]) -> Protocol:
    """Return the protocol of tasks whose classes are those of their training rows.

    Under domain-incremental all share the classes of all files. Raises :class:`ConfigError`
    where the protocol does not fit the classes, and :class:`DataError` for a class that is
    tested but never trained on.
    """
    count = check_numbering(files, "train_y", [file.train_y for file in files])
    own = tuple(tuple(np.unique(file.train_y).tolist()) for file in files)
    domains = name == "domain-incremental"
    made = Protocol(name, shared_classes(len(files), count) if domains else own, count)
    if domains:
        _check_shared(own)
    elif name == "class-incremental":
        _check_apart(own, files)
    for file, members in zip(files, made.classes, strict=True):
        unknown = np.setdiff1d(file.test_y, members)
        if len(unknown):
            whose = "any task's" if domains else "this task's"
            raise DataError(
                f"'{file.path}': test_y holds class {unknown[0]}, which is not among {whose} "
                "train_y; leave its rows out, or put some into train_x"
            )
    return made


def _check_shared(own: Sequence[tuple[int, ...]]) -> None:
    """Classes of which no two tasks share one are no single set of classes."""
    if len(own) > 1 and sum(map(len, own)) == len(set().union(*own)):
        raise ConfigError(
            "task.protocol is domain-incremental, but no two files share a class in train_y: set "
            "task.protocol=class-incremental (or task-incremental), or number each file's "
            "classes from 0 on if they mean the same"
        )


def _check_apart(own: Sequence[tuple[int, ...]], files: Sequence[TaskFile]) -> None:
    """One class in some tasks only cannot be told from a class of the same number elsewhere."""
    if len(set(own)) == 1:
        return
    first: dict[int, int] = {}
    for task, members in enumerate(own):
        for member in members:
            if member in first:
                raise ConfigError(
                    f"task.protocol is class-incremental, but class {member} is in train_y of "
                    f"'{files[first[member]].path}' and of '{files[task].path}', which differ in "
                    "others: let tasks share all classes or none, or set "
                    "task.protocol=domain-incremental"
                )
            first[member] = task

"""The table of labels on clients, and its picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedalt.data import label_table, pathological, plot_labels
from fedalt.errors import DataError


def test_table_counts_every_row() -> None:
    labels = np.array(["b", "a", "c", "a"])
    table = label_table([np.array([0, 1]), np.array([2, 3])], labels)
    assert table.tolist() == [[1, 1, 0], [1, 0, 1]]


def test_table_keeps_classes_that_are_absent() -> None:
    table = label_table([np.array([0, 1])], np.array([0, 2]), classes=4)
    assert table.tolist() == [[1, 0, 1, 0]]
    with pytest.raises(DataError, match="label 5 at row 1 lies outside 0 to 3"):
        label_table([np.array([0, 1])], np.array([0, 5]), classes=4)


@pytest.mark.parametrize(("clients", "classes"), [(1, 2), (10, 10), (100, 10), (300, 40)])
def test_picture_is_written(tmp_path: Path, clients: int, classes: int) -> None:
    labels = np.arange(3000) % classes
    table = label_table(pathological(labels, clients, 2, np.random.default_rng(0)), labels)
    path = plot_labels(table, tmp_path / "labels.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 3_000


def test_class_names_must_fit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 class names for a table of 2 classes"):
        plot_labels(np.ones((3, 2), int), tmp_path / "labels.png", ["only"])

"""Pictures of streams: what stands on their axes."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from streams_by_hand import WORKED

from fedalt.errors import ConfigError, DataError
from fedalt.evaluation import (
    accuracy_matrix,
    forgetting_matrix,
    oldest_newest,
    spacing_curves,
    task_timeline,
)
from fedalt.evaluation.colours import TASKS, ink_on, task_colours, to_rgba

Drawn = list[Figure]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """Figures as they are saved."""
    found: Drawn = []
    for room in ("heat_map", "continual_plots", "task_timeline"):
        module = __import__(f"fedalt.evaluation.{room}", fromlist=["save"])

        def keep(figure: Figure, path: Path, save: Any = module.save) -> Path:
            found.append(figure)
            return Path(save(figure, path))

        monkeypatch.setattr(module, "save", keep)
    return found


def texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for each in figure.legends for text in each.get_texts()]


def labels(axis: Any) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def test_heat_map_numbers_its_cells(drawn: Drawn, tmp_path: Path) -> None:
    matrix = np.array(WORKED)
    matrix[2, 0] = np.nan
    path = forgetting_matrix(accuracy_matrix(matrix), tmp_path / "r.png", title="power law")
    assert path.stat().st_size > 5000
    axes = drawn[0].axes[0]
    assert texts(axes) == [".80", ".10", ".20", ".60", ".90", ".30", ".60", ".70"]
    assert legend(drawn[0]) == ["new task", "not met yet", "not measured"]
    picture = np.asarray(axes.images[0].get_array())
    assert (picture[2, 0] == 1).all()
    np.testing.assert_array_equal(picture[0, 1], picture[1, 2])
    assert not np.array_equal(picture[0, 0], picture[1, 1])


def test_heat_maps_share_one_scale_and_show_tasks_as_met(drawn: Drawn, tmp_path: Path) -> None:
    many = {f"environment {k}": accuracy_matrix(np.array(WORKED) / k, [2, 0, 1]) for k in (1, 2, 3)}
    forgetting_matrix(many, tmp_path / "r.png", names=["a", "b", "c"])
    *panels, bar = drawn[0].axes
    assert [axes.get_title() for axes in panels] == list(many)
    assert labels(panels[0].xaxis) == ["c", "a", "b"]
    # 0.2/3 is the least accuracy on a task met, 0.7 the highest: tenths around them.
    assert bar.get_ylim() == pytest.approx((0.0, 0.7))
    assert texts(panels[1])[:3] == [".10", ".40", ".05"]


def test_heat_map_of_many_tasks_has_no_numbers(drawn: Drawn, tmp_path: Path) -> None:
    forgetting_matrix(np.tri(30), tmp_path / "r.png", scale=(0.0, 1.0))
    axes = drawn[0].axes[0]
    assert not texts(axes)
    assert labels(axes.xaxis) == [str(task) for task in range(0, 30, 2)]


def test_spacing_curves_have_a_line_and_a_band_an_environment(drawn: Drawn, tmp_path: Path) -> None:
    low, high = accuracy_matrix(np.array(WORKED) * 0.5), accuracy_matrix(WORKED)
    spacing_curves({"low": [low, low], "mixed": [low, high], "one": [high]}, tmp_path / "s.png")
    axes = drawn[0].axes[0]
    expected = np.array([2.4 / 3, 0.6, 0.5])
    for line, factor in zip(axes.lines, (0.5, 0.75, 1.0), strict=True):
        assert np.asarray(line.get_ydata()) == pytest.approx(expected * factor)
    assert legend(drawn[0]) == ["one", "mixed", "low"]
    assert "95% interval of the mean" in axes.get_ylabel()
    half = 12.7062 * expected * 0.25 / np.sqrt(2) * np.sqrt(2)
    ends = axes.collections[1].get_paths()[0].vertices[:, 1]
    assert ends.max() == pytest.approx((expected * 0.75 + half).max(), rel=1e-4)


def test_oldest_newest_stands_by_experience(drawn: Drawn, tmp_path: Path) -> None:
    oldest_newest({"hazard": [accuracy_matrix(WORKED, [2, 0, 2])]}, tmp_path / "o.png")
    (line,) = drawn[0].axes[0].lines
    assert np.asarray(line.get_xdata()).tolist() == [1, 2]
    assert np.asarray(line.get_ydata()) == pytest.approx([0.5, 0.7])
    assert drawn[0].axes[0].get_ylabel() == "accuracy"
    assert not legend(drawn[0])


@pytest.mark.parametrize("clients", [1, 4, 100])
def test_timeline_names_what_fits(drawn: Drawn, tmp_path: Path, clients: int) -> None:
    orders = (np.arange(10) + np.arange(clients)[:, None]) % 10
    task_timeline(orders, tmp_path / "t.png", tasks=10)
    axes = drawn[0].axes[0]
    picture = np.asarray(axes.images[0].get_array())
    np.testing.assert_array_equal(picture, task_colours(10)[orders])
    assert texts(axes) == ([] if clients == 100 else [str(task) for task in orders.ravel()])
    assert legend(drawn[0]) == ([str(task) for task in range(10)] if clients == 100 else [])
    assert len(labels(axes.yaxis)) == {1: 1, 4: 4, 100: 25}[clients]
    assert drawn[0].get_figheight() < 12


def test_timeline_shows_the_shares_of_one_clients_rows(drawn: Drawn, tmp_path: Path) -> None:
    rows = [[0, 80, 0], [60, 20, 0], [15, 5, 60]]
    task_timeline(
        [[0, 1, 2], [1, 0, 2]],
        tmp_path / "t.png",
        tasks=["rotated 0°", "rotated 30°", "rotated 60°"],
        clients=["ct", "mr"],
        rows=rows,
        client=1,
    )
    upper, lower = drawn[0].axes
    assert labels(upper.yaxis) == ["ct", "mr"]
    assert lower.get_ylabel() == "rows of client mr"
    heights = [[bar.get_height() for bar in stack] for stack in lower.containers]
    # By recency: the new task, then the one before it, then the one before that.
    assert heights[0] == pytest.approx([1.0, 0.75, 0.75])
    assert heights[1] == pytest.approx([0.0, 0.25, 15 / 80])
    assert heights[2] == pytest.approx([0.0, 0.0, 5 / 80])
    assert lower.containers[1][2].get_facecolor() == pytest.approx(tuple(to_rgba(TASKS[0])))


def test_timeline_of_gaps_and_of_more_tasks_than_colours(drawn: Drawn, tmp_path: Path) -> None:
    task_timeline([0, -1, 24], tmp_path / "t.png", tasks=25)
    assert drawn[0].axes[1].get_ylabel() == "task"
    assert texts(drawn[0].axes[0]) == ["0", "24"]
    assert legend(drawn[0]) == ["no task"]


def test_twenty_colours_are_told_apart_by_colour_blind_eyes() -> None:
    """Oklab distances (Ottosson 2020), as seen by deutan and protan eyes (Machado 2009)."""
    rgb = task_colours(20)[:, :3]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    deutan = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
              [-0.011820, 0.042940, 0.968881]]  # fmt: skip
    protan = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
              [-0.003882, -0.048116, 1.051998]]  # fmt: skip
    cones = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
             [0.0883024619, 0.2817188376, 0.6299787005]]  # fmt: skip
    axes = [[0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660]]  # fmt: skip
    for eye in (np.eye(3), np.array(deutan), np.array(protan)):
        seen = np.cbrt(np.clip(linear @ eye.T, 0, 1) @ np.array(cones).T) @ np.array(axes).T
        nearest = min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2))
        assert nearest > 0.06
    assert ink_on(to_rgba("#FFE14B")) == "black"
    assert ink_on(to_rgba("#332288")) == "white"


def test_pictures_refuse_what_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "never.png"
    with pytest.raises(ConfigError, match="forgetting matrix 'x': 3 tasks, but 2 names"):
        forgetting_matrix({"x": WORKED}, path, names=["a", "b"])
    with pytest.raises(DataError, match="no matrix"):
        forgetting_matrix({}, path)
    with pytest.raises(DataError, match="no environment"):
        spacing_curves({}, path)
    with pytest.raises(DataError, match=r"'x': its runs have \[2, 3\] experiences"):
        oldest_newest({"x": [accuracy_matrix(WORKED), accuracy_matrix(WORKED[:2])]}, path)
    with pytest.raises(ConfigError, match="orders: task 3 in experience"):
        task_timeline([[0, 3]], path, tasks=3)
    with pytest.raises(ConfigError, match="1 clients in the orders, but 2 names"):
        task_timeline([[0, 1]], path, tasks=3, clients=["a", "b"])
    with pytest.raises(DataError, match=r"rows has shape \(1, 3\)"):
        task_timeline([[0, 1]], path, tasks=3, rows=[[1, 0, 0]])
    with pytest.raises(DataError, match="no count"):
        task_timeline([0], path, tasks=2, rows=[[1, -1]])
    with pytest.raises(ConfigError, match="client 1 is out of range"):
        task_timeline([0], path, tasks=2, rows=[[1, 1]], client=1)
    with pytest.raises(ConfigError, match="no task"):
        task_timeline([0], path, tasks=0)
    assert not path.exists()

"""Overlays and heat maps: what is drawn, which way round, and in which colours."""

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from fedalt.errors import ConfigError, DataError
from fedalt.medical import organ_heat_map as heat
from fedalt.medical import overlays
from fedalt.medical.organ_scores import ScoreTable, judge, judge_batch
from fedalt.medical.overlays import (
    AGREEMENT,
    Overlay,
    busiest_slice,
    organ_colours,
    overlay_page,
    radiological,
)

ORGANS = ("liver", "spleen", "left_kidney")


def _case(title: str, *shape: int, **more: object) -> Overlay:
    truth = np.zeros(shape, np.uint8)
    truth[2:6, 3:8] = 1
    truth[8:10, 3:6] = 2
    prediction = np.roll(truth, 1, axis=1)
    image = np.random.default_rng(0).random(shape).astype(np.float32)
    return Overlay(title, image, truth, prediction, **more)  # type: ignore[arg-type]


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list:
    """Figures as they were before being written."""
    figures: list = []
    for module in (overlays, heat):
        write = module.save
        monkeypatch.setattr(
            module,
            "save",
            lambda drawn, path, write=write: figures.append(drawn) or write(drawn, path),
        )
    return figures


@pytest.mark.parametrize(("agreement", "columns"), [(False, 3), (True, 4)])
def test_a_page_has_a_row_a_case_and_names_its_organs(
    kept: list, tmp_path: Path, agreement: bool, columns: int
) -> None:
    cases = [
        _case("ct 1", 16, 12, 5, spacing=(1.5, 3.0, 2.0)),
        _case("mr 1", 16, 12, scores="Dice 0.12"),
    ]
    path = overlay_page(cases, ORGANS, tmp_path / "page.png", agreement=agreement, title="Page")
    (drawn,) = kept
    panels = drawn.axes
    assert len(panels) == 2 * columns
    titles = [axes.get_title() for axes in panels]
    assert titles[::columns] == ["ct 1", "mr 1"]
    assert titles[2::columns] == [
        "prediction: Dice 0.73",
        "prediction: Dice 0.12",
    ]  # (4/5 + 2/3) / 2
    assert [axes.get_aspect() for axes in panels[::columns]] == [2.0, 1.0]
    for axes in panels:
        assert [text.get_text() for text in axes.texts] == ["R", "L"]
        assert axes.texts[0].get_position()[0] < axes.texts[1].get_position()[0]
    names = [text.get_text() for text in drawn.legends[0].get_texts()]
    assert names[:2] == ["liver", "spleen"] and len(names) == (6 if agreement else 2)
    rows, across = matplotlib.image.imread(path).shape[:2]
    width, height = drawn.get_size_inches()
    assert (across, rows) == (int(width * 130), int(height * 130))
    assert width == pytest.approx(2.9 * columns)


def test_the_patient_s_right_is_on_the_left_and_anterior_up() -> None:
    axial = np.zeros((5, 4))
    axial[4, 3] = 1  # right, anterior
    axial[0, 0] = 2  # left, posterior
    picture = radiological(axial)
    assert picture.shape == (4, 5)
    assert picture[0, 0] == 1 and picture[-1, -1] == 2


def test_the_slice_with_the_most_organs_is_drawn(kept: list, tmp_path: Path) -> None:
    truth = np.zeros((6, 6, 4), np.uint8)
    truth[..., 0] = 1
    truth[:2, 0, 1], truth[2:4, 0, 1] = 1, 2
    truth[:3, 0, 2], truth[3:6, 0, 2] = 1, 2
    assert busiest_slice(truth) == 2
    image = np.broadcast_to(np.arange(4.0), truth.shape)
    overlay_page([Overlay("a", image, truth, truth)], ORGANS, tmp_path / "a.png")
    assert (kept[0].axes[0].images[0].get_array() == 2).all()


def test_organs_are_filled_and_outlined_in_their_colours(kept: list, tmp_path: Path) -> None:
    case = _case("a", 16, 12)
    overlay_page([case], ORGANS, tmp_path / "a.png")
    colours = organ_colours(3)
    for axes, labels in zip(kept[0].axes[1:], (case.truth, case.prediction), strict=True):
        fill = axes.images[1].get_array()
        shown = radiological(labels)
        for label in (1, 2):
            np.testing.assert_allclose(
                fill[shown == label][:, :3], [colours[label - 1, :3]] * (shown == label).sum()
            )
        assert (fill[shown == 0][:, 3] == 0).all() and (fill[shown > 0][:, 3] < 1).all()
        assert len(axes.collections) == 2
    assert len(kept[0].axes[0].images) == 1


def test_the_agreement_map_tells_four_outcomes_apart(kept: list, tmp_path: Path) -> None:
    truth, prediction = np.array([[0, 1, 1], [0, 1, 0]]), np.array([[0, 1, 0], [2, 2, 0]])
    page = [Overlay("a", np.eye(2, 3), truth, prediction)]
    overlay_page(page, ORGANS, tmp_path / "a.png", agreement=True)
    picture = kept[0].axes[3].images[1].get_array()
    expected = {
        (0, 1): "right",
        (0, 2): "missed",
        (1, 0): "false alarm",
        (1, 1): "wrong organ",
    }
    for (x, y), name in expected.items():
        row, column = truth.shape[1] - 1 - y, truth.shape[0] - 1 - x
        np.testing.assert_allclose(picture[row, column, :3], AGREEMENT[name][:3])
    assert (picture[..., 3] > 0).sum() == 4


def test_organ_colours_are_distinct_and_show_on_dark_scans() -> None:
    colours = organ_colours(20)
    assert (colours[:, :3].mean(axis=1) >= 0.45 - 1e-9).all()
    gaps = np.linalg.norm(colours[:, None, :3] - colours[None, :, :3], axis=-1)
    assert gaps[~np.eye(20, dtype=bool)].min() > 0.05
    assert organ_colours(40).shape == (40, 4)


@pytest.mark.parametrize("where", ["truth", "both"])
def test_cases_without_organs_and_flat_images_are_drawn(
    kept: list, tmp_path: Path, where: str
) -> None:
    case = _case("a", 16, 12, 3)
    nothing = np.zeros_like(case.truth)
    found = nothing if where == "both" else case.prediction
    page = [Overlay("a", np.zeros(case.image.shape), nothing, found)]
    assert overlay_page(page, ORGANS, tmp_path / "a.png").stat().st_size > 0
    title = kept[0].axes[2].get_title()
    assert title == ("prediction: no organs" if where == "both" else "prediction: Dice 0.00")


def test_cases_that_cannot_be_drawn_are_refused(tmp_path: Path) -> None:
    def page(*cases: Overlay) -> Path:
        return overlay_page(cases, ORGANS, tmp_path / "a.png")

    case = _case("ct 7", 16, 12)
    with pytest.raises(DataError, match="no case"):
        page()
    with pytest.raises(DataError, match="overlay 'ct 7': image \\(12, 16\\)"):
        page(Overlay("ct 7", case.image.T, case.truth, case.prediction))
    with pytest.raises(DataError, match="prediction has labels from 0 to 9, but there are 3"):
        page(Overlay("ct 7", case.image, case.truth, case.truth * 9 // 2))
    with pytest.raises(ConfigError, match="2 lengths in mm"):
        page(_case("ct 7", 16, 12, spacing=(1.0, 1.0, 1.0)))


def test_a_heat_map_has_a_row_an_organ_and_a_column_a_site(kept: list, tmp_path: Path) -> None:
    table = ScoreTable(ORGANS)
    with pytest.raises(DataError, match="no case"):
        heat.organ_heat_map(table, tmp_path / "a.png")
    case = _case("a", 16, 12)
    table.add(judge(case.prediction, case.truth, ORGANS, (1, 1)), "ct", "oslo", "a")
    (perfect,) = judge_batch(case.truth[None], case.truth[None], ORGANS)
    table.add(perfect, "mr", "rome", "b")
    for measure, last in (("dice", "1.00"), ("hd95", "1.0")):
        path = heat.organ_heat_map(table, tmp_path / "a.png", measure=measure, title="Scores")
        assert path.stat().st_size > 0
        axes = kept[-1].axes[0]
        labels = [text.get_text() for text in axes.get_yticklabels()]
        assert labels == ["liver", "spleen", "left kidney", "mean"]
        columns = [text.get_text() for text in axes.get_xticklabels()]
        assert columns == ["ct\nall sites", "ct\noslo", "mr\nall sites", "mr\nrome"]
        assert axes.texts[-1].get_text() == last
    picture = kept[0].axes[0].images[0].get_array()
    assert (picture[2] == 1).all() and not (picture[0] == 1).all()
    with pytest.raises(ConfigError, match="no measure"):
        heat.organ_heat_map(table, tmp_path / "a.png", measure="iou")

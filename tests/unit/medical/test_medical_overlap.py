"""Dice, its policy for absent organs, and means per organ, modality and site."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice

from fedalt.errors import ConfigError, DataError
from fedalt.medical.organ_scores import OrganScores, ScoreTable, judge, judge_batch
from fedalt.medical.overlap import batch_dice, dice, overlaps

ORGANS = ("liver", "spleen", "aorta")
NAN = math.nan


def _labels(seed: int, shape: tuple[int, ...] = (6, 9, 8), classes: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, shape)


@pytest.mark.parametrize(
    ("truth", "prediction", "expected"),
    [
        ([0, 0, 0], [0, 0, 0], NAN),
        ([0, 0, 0], [0, 1, 0], 0.0),
        ([0, 1, 1], [0, 0, 0], 0.0),
        ([1, 1, 0], [0, 0, 1], 0.0),
        ([1, 1, 0], [0, 1, 1], 0.5),
        ([1, 1, 1], [1, 0, 0], 0.5),
        ([1, 0, 1], [1, 0, 1], 1.0),
    ],
)
def test_absent_organs_follow_the_policy(
    truth: list[int], prediction: list[int], expected: float
) -> None:
    assert dice(prediction, truth) == pytest.approx(expected, nan_ok=True)
    batch = batch_dice([prediction], [truth], classes=2)
    assert batch == pytest.approx(np.array([[expected]]), nan_ok=True)


def test_a_batch_agrees_with_masks_and_with_monai() -> None:
    prediction, truth = _labels(0), _labels(1)
    truth[0][truth[0] == 2] = 0
    prediction[0][prediction[0] == 2] = 0
    prediction[1][prediction[1] == 3] = 0
    found = batch_dice(prediction, truth, classes=4)
    for row in range(6):
        for organ in range(1, 4):
            single = dice(prediction[row] == organ, truth[row] == organ)
            assert found[row, organ - 1] == pytest.approx(single, nan_ok=True)
    classes = torch.arange(4)[None, :, None, None]
    one_hot = [(torch.as_tensor(labels)[:, None] == classes) for labels in (prediction, truth)]
    there = found[1:]  # monai has another policy for an organ absent from truth
    reference = compute_dice(*one_hot, include_background=False)[1:].numpy()
    np.testing.assert_allclose(there, reference, rtol=1e-6)
    assert np.isnan(found[0, 1]) and found[1, 2] == 0


def test_tensors_bytes_and_masks_are_labels_too() -> None:
    prediction, truth = _labels(2), _labels(3)
    expected = batch_dice(prediction, truth, 4)
    tensors = torch.as_tensor(prediction), torch.as_tensor(truth)
    np.testing.assert_array_equal(batch_dice(*tensors, 4), expected)
    small = prediction.astype(np.uint8), truth.astype(np.uint8)
    np.testing.assert_array_equal(batch_dice(*small, 4), expected)
    masks = batch_dice(prediction == 2, truth == 2, 2)
    np.testing.assert_array_equal(masks[:, 0], expected[:, 1])


def test_unlabelled_organs_are_left_out_row_by_row() -> None:
    prediction, truth = _labels(4, (2, 9, 8)), _labels(5, (2, 9, 8))
    known = np.array([[1, 1, 0, 1], [1, 0, 1, 1]], bool)
    found = batch_dice(prediction, truth, 4, known)
    np.testing.assert_array_equal(np.isnan(found), ~known[:, 1:])
    everywhere = batch_dice(prediction, truth, 4, known[0])
    np.testing.assert_array_equal(np.isnan(everywhere), ~known[[0, 0], 1:])


def test_misses_and_false_alarms_are_told_apart() -> None:
    truth, prediction = np.array([[1, 1, 0, 0]]), np.array([[2, 2, 0, 3]])
    counted = overlaps(prediction, truth, 4)
    assert counted.missed.tolist() == [[True, False, False]]
    assert counted.false_alarms.tolist() == [[False, True, True]]
    (scores,) = judge_batch(prediction, truth, ORGANS, known=[True, True, True, False])
    assert scores.missed.tolist() == [True, False, False]
    assert scores.false_alarms.tolist() == [False, True, False]
    assert scores.dice == pytest.approx([0, 0, NAN], nan_ok=True)


@pytest.mark.parametrize(
    ("prediction", "truth", "known", "error", "words"),
    [
        (np.zeros((1, 3), int), np.zeros((1, 4), int), None, DataError, "one grid"),
        (np.full((1, 3), 4), np.zeros((1, 3), int), None, DataError, "prediction: labels from 4"),
        (np.zeros((1, 3), int), np.full((1, 3), -1), None, DataError, "truth: labels from -1"),
        (np.zeros((1, 3)), np.zeros((1, 3), int), None, DataError, "argmax"),
        (np.zeros((1, 3), int), np.zeros((1, 3), int), [True] * 3, ConfigError, "background first"),
        (np.zeros((1, 3), int), np.zeros((1, 3), int), [[True] * 4] * 2, ConfigError, "known"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    prediction: np.ndarray,
    truth: np.ndarray,
    known: list[bool] | None,
    error: type[Exception],
    words: str,
) -> None:
    with pytest.raises(error, match=words):
        batch_dice(prediction, truth, 4, known)


def test_a_batch_has_a_background_and_an_organ() -> None:
    with pytest.raises(ConfigError, match="an organ at least"):
        batch_dice([[0]], [[0]], classes=1)
    with pytest.raises(DataError, match="one grid"):
        dice([True, False], [True])


def _scores(dice_of: list[float], hd95: list[float] | None = None) -> OrganScores:
    distances = np.array(hd95 or [NAN] * 3)
    none = np.zeros(3, bool)
    missed = np.array([value == 0 for value in dice_of])
    return OrganScores(ORGANS, np.array(dice_of), distances, distances / 2, missed, none)


@pytest.fixture
def table() -> ScoreTable:
    filled = ScoreTable(ORGANS)
    filled.add(_scores([0.8, NAN, 0.6], [4, NAN, 2]), "ct", "oslo", "a")
    filled.add(_scores([0.4, 0.0, NAN], [8, NAN, NAN]), "ct", "oslo", "b")
    filled.add(_scores([NAN, 0.5, NAN]), "ct", "rome", "c")
    filled.add(_scores([0.9, NAN, NAN], [1, NAN, NAN]), "mr", "rome", "d")
    return filled


def test_means_leave_out_what_was_not_judged_and_weigh_organs_alike(table: ScoreTable) -> None:
    assert table.organ_means("dice", "ct") == pytest.approx([0.6, 0.25, 0.6])
    assert table.counts("dice", "ct").tolist() == [2, 2, 1]
    assert table.mean("dice", modality="ct") == pytest.approx((0.6 + 0.25 + 0.6) / 3)
    assert table.mean("dice", "liver") == pytest.approx(0.7)
    assert table.mean("dice", site="rome") == pytest.approx((0.5 + 0.9) / 2)
    assert table.mean("hd95", "liver", "ct", "oslo") == pytest.approx(6)
    assert math.isnan(table.mean("hd95", "spleen"))
    assert math.isnan(table.mean("dice", modality="pet"))


def test_metrics_are_finite_and_named_by_modality_organ_and_site(table: ScoreTable) -> None:
    metrics = table.metrics("test")
    assert all(math.isfinite(value) for value in metrics.values())
    assert metrics["test/dice/ct/liver"] == pytest.approx(0.6)
    assert metrics["test/dice/mr"] == pytest.approx(0.9)
    assert metrics["test/hd95/ct"] == pytest.approx((6 + 2) / 2)
    assert metrics["test/assd/ct"] == pytest.approx((3 + 1) / 2)
    assert metrics["test/dice/site/oslo"] == pytest.approx((0.6 + 0 + 0.6) / 3)
    assert metrics["test/missed/ct"] == 1 and metrics["test/missed/mr"] == 0
    assert "test/dice/mr/spleen" not in metrics and "test/hd95/ct/spleen" not in metrics
    assert set(table.metrics()) == {name.removeprefix("test/") for name in metrics}
    assert ScoreTable(ORGANS).metrics() == {}


def test_rows_go_from_all_to_sites_and_count_their_cases(table: ScoreTable) -> None:
    rows = table.rows()
    groups = list(dict.fromkeys((row["modality"], row["site"]) for row in rows))
    assert groups == [
        ("all", "all"),
        ("ct", "all"),
        ("ct", "oslo"),
        ("ct", "rome"),
        ("mr", "all"),
        ("mr", "rome"),
    ]
    assert len(rows) == 4 * len(groups)
    first, liver = rows[0], rows[1]
    assert first["organ"] == "mean" and first["dice"] == pytest.approx((0.7 + 0.25 + 0.6) / 3)
    assert (first["dice_cases"], first["hd95_cases"], first["missed"]) == (6, 4, 1)
    assert liver["organ"] == "liver" and liver["dice_cases"] == 3


def test_tables_are_written_with_empty_cells_for_nan(table: ScoreTable, tmp_path: Path) -> None:
    def read(path: Path) -> list[dict[str, str]]:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    means = read(table.to_csv(tmp_path / "means.csv"))
    assert means[0]["modality"] == "all" and float(means[1]["dice"]) == pytest.approx(0.7)
    cases = read(table.to_csv(tmp_path / "cases.csv", cases=True))
    assert len(cases) == 4 * 3
    assert [cases[1][k] for k in ("case", "organ", "dice")] == ["a", "spleen", ""]
    assert read(ScoreTable(ORGANS).to_csv(tmp_path / "none.csv")) == []


def test_a_table_refuses_other_organs_and_unknown_names(table: ScoreTable) -> None:
    (other,) = judge_batch([[0, 1]], [[0, 1]], ["liver"])
    with pytest.raises(ConfigError, match="case 'x' of site 'oslo': judged on liver"):
        table.add(other, "ct", "oslo", "x")
    with pytest.raises(ConfigError, match="did you mean 'spleen'"):
        table.mean("dice", "spleeen")
    with pytest.raises(ConfigError, match="did you mean 'dice'"):
        table.values("dise")
    with pytest.raises(ConfigError, match="missed: shape"):
        OrganScores(ORGANS, *np.zeros((3, 3)), np.zeros(2, bool), np.zeros(3, bool))


def test_one_case_and_a_batch_are_judged_alike() -> None:
    prediction, truth = _labels(6), _labels(7)
    batch = judge_batch(prediction, truth, ORGANS)
    for row, scores in enumerate(batch):
        single = judge(prediction[row], truth[row], ORGANS, (1, 1), surfaces=False)
        np.testing.assert_array_equal(single.dice, scores.dice)
        assert np.isnan(single.hd95).all() and np.isnan(scores.assd).all()

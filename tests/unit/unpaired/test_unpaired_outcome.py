"""What a report says of cases that have nothing to judge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedalt.medical.organ_scores import ScoreTable
from fedalt.scenarios.unpaired_ct_mr.judge import balanced, score
from fedalt.scenarios.unpaired_ct_mr.outcome import Judged
from fedalt.scenarios.unpaired_ct_mr.report import organ_table, overlays_of
from fedalt.scenarios.unpaired_ct_mr.source import Scan

ORGANS = ("liver", "spleen")


def scan(name: str, modality: str, liver: int) -> Scan:
    """A scan with so many rows of liver."""
    label = np.zeros((16, 16), np.uint8)
    label[:liver] = 1
    image = np.linspace(0.0, 1.0, 256, dtype=np.float32).reshape(16, 16)
    return Scan(name, "site", modality, image, label, np.ones(3, bool), (1.0, 1.0))


def test_cases_without_organs_are_shown_only_where_there_are_no_others() -> None:
    scans = [scan("none", "ct", 0), scan("some", "ct", 4), scan("more", "ct", 8)]
    scans.append(scan("none", "mr", 0))
    predicted = [scans[0].label, scans[1].label, scans[1].label, scans[3].label]
    judged = Judged(scans, predicted, score(scans, predicted, ORGANS), "the server's model", "dice")
    shown = overlays_of(judged)
    assert [each.scores for each in shown] == ["Dice 0.67", "no organs"]
    assert shown[0].truth is scans[2].label


def test_modalities_weigh_alike_and_no_cases_are_no_number() -> None:
    scans = [scan("a", "ct", 4), scan("b", "ct", 4), scan("c", "mr", 4)]
    empty = scan("d", "ct", 0).label
    table = score(scans, [scans[0].label, scans[1].label, empty], ORGANS)
    assert balanced(table) == 0.5
    assert np.isnan(balanced(ScoreTable(ORGANS)))


def test_scores_on_scans_that_a_site_trains_on_are_told_apart() -> None:
    held_out, trained = scan("a", "ct", 4), replace(scan("b", "ct", 4), site="east", trained=True)
    for scans, told in (([held_out], 2), ([held_out, trained], 3)):
        labels = [each.label for each in scans]
        main = Judged(scans, labels, score(scans, labels, ORGANS), "each site's model", "sites")
        notes = organ_table(main).notes
        assert len(notes) == told
    assert notes[-1] == "judged on what they trained on, for want of test scans: east"

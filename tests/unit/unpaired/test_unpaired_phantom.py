"""Phantoms: the same subjects for all scanners, labels by organ, a page of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedalt.errors import ConfigError
from fedalt.scenarios.unpaired_ct_mr.anatomy import analytic_abdomen
from fedalt.scenarios.unpaired_ct_mr.phantom import PRESETS, phantoms, scanner
from fedalt.scenarios.unpaired_ct_mr.phantom_page import main, page
from fedalt.scenarios.unpaired_ct_mr.tissues import NAMES, ORGANS, Jitter
from fedalt.scenarios.unpaired_ct_mr.warps import Warp

STILL = Warp(shift=0, degrees=0, scale=0, bend=0, distractors=0)


@pytest.mark.parametrize("size", [(48, 48), (32, 32, 12)])
def test_phantoms_are_images_with_the_organs_labels(size: tuple[int, ...]) -> None:
    made = phantoms(analytic_abdomen(size), scanner("ct"), 3, np.random.default_rng(0))
    assert made.images.shape == made.labels.shape == (3, *size)
    assert (made.images.dtype, made.labels.dtype) == (np.float32, np.uint8)
    assert np.isfinite(made.images).all()
    assert set(np.unique(made.labels)) == set(range(1 + len(ORGANS)))


def test_labels_follow_the_tasks_organs_in_their_order() -> None:
    of = analytic_abdomen((64, 64))
    made = phantoms(
        of, scanner("mr"), 1, np.random.default_rng(0), ("spleen", "liver"), STILL
    ).labels[0]
    np.testing.assert_array_equal(made == 1, of.tissues == NAMES.index("spleen"))
    np.testing.assert_array_equal(made == 2, of.tissues == NAMES.index("liver"))
    none = phantoms(of, scanner("mr"), 0, np.random.default_rng(0))
    assert none.images.shape == (0, 64, 64)


def test_a_generators_state_decides_and_more_subjects_keep_the_first_ones() -> None:
    of = analytic_abdomen((48, 48))
    few = phantoms(of, scanner("mr"), 2, np.random.default_rng(5))
    many = phantoms(of, scanner("mr"), 4, np.random.default_rng(5))
    other = phantoms(of, scanner("mr"), 2, np.random.default_rng(6))
    np.testing.assert_array_equal(few.images, many.images[:2])
    np.testing.assert_array_equal(few.labels, many.labels[:2])
    assert (few.labels != other.labels).any()
    assert (many.labels[0] != many.labels[1]).any()
    rng = np.random.default_rng(5)
    first, second = (phantoms(of, scanner("mr"), 2, rng) for _ in range(2))
    np.testing.assert_array_equal(first.images, few.images)
    assert (second.labels != first.labels).any()


@pytest.mark.parametrize("size", [(48, 48), (32, 32, 12)])
def test_all_scanners_see_the_same_subjects(size: tuple[int, ...]) -> None:
    of = analytic_abdomen(size)
    made = [
        phantoms(of, each, 2, np.random.default_rng(1))
        for vendors in PRESETS.values()
        for each in vendors.values()
    ]
    assert len(made) == 12
    for one in made[1:]:
        np.testing.assert_array_equal(one.labels, made[0].labels)
        assert (one.images != made[0].images).any()


def test_images_are_the_tissues_values_where_nothing_disturbs_them() -> None:
    of = analytic_abdomen((96, 96))
    calm = Jitter(hu=0, enhancement=0, t1=0, t2=0, proton_density=0)
    made = phantoms(of, scanner("ct"), 1, np.random.default_rng(2), ORGANS, STILL, calm)
    for organ, hu in (("liver", 112), ("spleen", 125)):
        inside = made.images[0][of.tissues == NAMES.index(organ)]
        assert np.median(inside) == pytest.approx(hu, abs=4)


def test_vendors_and_protocols_that_there_are_not_are_named() -> None:
    with pytest.raises(ConfigError, match=r"no modality 'ctt' .did you mean 'ct'"):
        scanner("ctt")
    with pytest.raises(ConfigError, match=r"ct: no vendor 'd' .known: a, b, c"):
        scanner("ct", "d")
    with pytest.raises(ConfigError, match=r"mr: no protocol 'portal' .known: se, spgr"):
        scanner("mr", "a", "portal")
    assert len({scanner("mr", vendor) for vendor in "abc"}) == 3


def test_organs_that_there_are_not_are_named() -> None:
    of = analytic_abdomen((48, 48))
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match=r"no organ 'splen' .did you mean 'spleen'"):
        phantoms(of, scanner("ct"), 1, rng, ("splen",))
    with pytest.raises(ConfigError, match="'liver' is named twice"):
        phantoms(of, scanner("ct"), 1, rng, ("liver", "liver"))
    with pytest.raises(ConfigError, match="count -1"):
        phantoms(of, scanner("ct"), -1, rng)


def test_the_page_of_volumes_is_a_picture(tmp_path: Path) -> None:
    from matplotlib.image import imread

    first = page(tmp_path, 0, None, (32, 32, 8), ("liver", "spleen"))
    assert first == tmp_path / "phantoms.png"
    shown = imread(first)
    assert min(shown.shape[:2]) > 1000 and shown[..., :3].std() > 0.1


def test_the_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path / "p.png"), "--seed", "3", "--dims", "2"]) == 0
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert "p.png" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--out", "p.png", "--dims", "4"])

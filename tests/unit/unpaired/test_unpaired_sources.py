"""What sites hold: phantoms of scanners of their own, patches of volumes, partial labels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from segmentation import SMALL, small_task

from fedalt.errors import ConfigError, DataError, FedaltError
from fedalt.scenarios.unpaired_ct_mr.source import MODALITIES
from fedalt.scenarios.unpaired_ct_mr.task import SegmentationTask
from fedalt.scenarios.unpaired_ct_mr.tasks import volume_task

needs_volumes = pytest.mark.skipif(
    not os.environ.get("FEDALT_DATA"), reason="volumes: FEDALT_DATA names no folder"
)


def test_sites_say_what_they_hold() -> None:
    task = small_task(sites={"ct": 2, "mr": 1, "both": 1}, vendors={"ct": ["a", "b"], "mr": ["b"]})
    told = [(s.name, s.size, s.attributes["modality"], s.attributes["vendor"]) for s in task.sites]
    assert told == [
        ("ct-0", 6, "ct", "a"),
        ("ct-1", 6, "ct", "b"),
        ("mr-0", 6, "mr", "b"),
        ("both-0", 12, "both", "a+b"),
    ]
    assert list(task.site_slices(0)) == ["ct"]
    slices = task.site_slices(3)
    modality = task.site_data(3)[2].numpy()
    for name in MODALITIES:
        assert set(modality[slices[name]]) == {MODALITIES.index(name)}
    assert sorted(np.concatenate(list(slices.values()))) == list(range(12))


def test_rows_are_normalised_by_modality() -> None:
    task = small_task()
    ct, mr = (task.site_data(site)[0].numpy() for site in (0, 1))
    assert ct.shape == (6, 1, 32, 32) and ct.dtype == np.float32
    assert ct.min() >= 0.0 and ct.max() <= 1.0
    for image in mr:
        nonzero = image[image != 0]
        assert abs(nonzero.mean()) < 1e-3 and abs(nonzero.std() - 1.0) < 1e-3


def test_no_subject_is_at_two_places() -> None:
    task = small_task(sites={"ct": 2, "mr": 0}, vendors={"ct": ["a"], "mr": ["a"]})
    source = task.source
    labels = [row for site in (0, 1) for row in task.site_data(site)[1].numpy()]
    labels += [s.label for site in (0, 1) for s in source.scans(site)]
    labels += [s.label for s in [*source.held_by_server(), *source.unseen()]]
    assert len({np.asarray(x, np.uint8).tobytes() for x in labels}) == len(labels)


def test_the_server_may_have_fewer_scans_than_there_are_vendors() -> None:
    scans = small_task(server_test=1, sites={"ct": 2, "mr": 2}).source.held_by_server()
    assert [(scan.modality, scan.site) for scan in scans] == [
        ("ct", "server a"),
        ("mr", "server a"),
    ]


def test_a_sites_subjects_do_not_depend_on_other_sites() -> None:
    few, many = small_task(), small_task(sites={"ct": 3, "mr": 2})
    assert (few.site_data(0)[0] == many.site_data(0)[0]).all()
    assert (few.site_data(1)[0] == many.site_data(3)[0]).all()


def test_organs_that_a_site_does_not_label_are_background_there() -> None:
    full, part = small_task(), small_task(labelled={"ct": ["spleen"]})
    label, known = part.site_data(0)[1], part.site_data(0)[3]
    assert known.tolist() == [[True, False, True, False]] * 6
    wanted = full.site_data(0)[1]
    assert (label == wanted.where(wanted == 2, 0)).all()
    # A site's own entry counts more than its modality's.
    own = small_task(labelled={"ct": ["spleen"], "ct-0": ["liver"]})
    assert own.site_data(0)[3][0].tolist() == [True, True, False, False]
    # Where nothing is said, all is labelled; so is the truth that a model is judged by.
    assert part.site_data(1)[3].all()
    assert {int(v) for scan in part.source.scans(0) for v in np.unique(scan.label)} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sites": {"ct": 1, "pet": 1}}, r"task\.phantoms\.sites: unknown modality 'pet'"),
        ({"sites": {"ct": 0, "mr": 0}}, "one site or more"),
        ({"images": 0}, r"task\.phantoms\.images=0: at least 1"),
        ({"organs": ["liver", "splen"]}, r"'splen'.*'spleen'"),
        ({"labelled": {"ct": ["kidney"]}}, r"labelled\.ct: unknown organ 'kidney'"),
        ({"labelled": {"ct-7": ["liver"]}}, r"labelled: unknown site or modality 'ct-7'"),
        ({"vendors": {"ct": ["z"], "mr": ["a"]}}, r"no vendor 'z'"),
        ({"vendors": {"ct": ["a"], "pet": ["a"]}}, r"vendors: unknown modality 'pet'"),
        ({"unseen": "z"}, r"task\.phantoms: ct: no vendor 'z'"),
        ({"unseen": "b"}, r"unseen=b is in task\.phantoms\.vendors\.ct"),
        ({"protocols": {"mr": "flair"}}, r"task\.phantoms: mr: no protocol 'flair'"),
        ({"vendors": {"ct": ["a"]}}, r"task\.phantoms\.vendors: none .*'mr'"),
        ({"size": [40, 40]}, "every side must be a multiple of 16"),
        ({"anatomy": "analytical"}, r"anatomy: unknown 'analytical'.*'analytic'"),
        ({"image": 3}, r"task\.phantoms: unknown setting 'image'.*'images'"),
        ({"images": "many"}, r"task\.phantoms\.images='many': a whole number expected"),
    ],
)
def test_settings_that_cannot_be_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_task(**change)


def test_an_organ_that_the_anatomy_lacks_is_named_before_anything_is_made() -> None:
    with pytest.raises(ConfigError, match=r"anatomy has no organ 'hert'"):
        small_task({"head": "plain"}, organs=["liver", "hert"])


def volumes(cache: Path, **changes: Any) -> SegmentationTask:
    given: dict[str, Any] = {
        "network": SMALL,
        "embeddings": "shipped",
        "layout": "abdomen",
        "table": None,
        "folder": None,
        "deal": {},
        "preparation": {"organs": ["liver", "spleen"], "spacing": [6.0, 6.0, 6.0]},
        "patches": {"size": [32, 32], "per_volume": 5},
        "unseen": [],
        "cache": str(cache),
        "seed": 0,
    }
    return volume_task(**{**given, **changes})


@needs_volumes
def test_volumes_come_as_patches_drawn_anew(tmp_path: Path) -> None:
    task = volumes(tmp_path)
    assert [(s.name, s.size, s.attributes["modality"]) for s in task.sites] == [
        ("ct_hospital", 5, "ct"),
        ("mr_hospital", 5, "mr"),
    ]
    rng = np.random.default_rng
    first, again, other = (task.site_draw(1, rng(seed)) for seed in (1, 1, 2))
    assert first[0].shape == (5, 1, 32, 32) and first[1].shape == (5, 32, 32)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert (first[0] != other[0]).any()
    assert set(first[2].tolist()) == {1}
    assert task.source.held_by_server() == []
    (scan,) = task.source.scans(0)
    assert scan.image.shape == scan.label.shape and scan.image.ndim == 3
    # No volume is held out here, and a reader of the scores has to know.
    assert scan.trained


@needs_volumes
def test_an_unseen_site_takes_no_part(tmp_path: Path) -> None:
    task = volumes(tmp_path, unseen=["mr_hospital"])
    assert [site.name for site in task.sites] == ["ct_hospital"]
    assert [(scan.modality, scan.trained) for scan in task.source.unseen()] == [("mr", False)]


@needs_volumes
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unseen": ["mr_hopital"]}, r"no site 'mr_hopital'.*'mr_hospital'"),
        ({"preparation": {"organs": ["livr"]}}, r"unknown organ 'livr'.*'liver'"),
        ({"layout": "amoss"}, r"'amoss'.*'amos'"),
        ({"layout": None}, "either a site table"),
        ({"folder": "/nowhere"}, r"'/nowhere'.*does not exist"),
        ({"patches": {"size": [32, 32], "per_volume": 0}}, r"patches\.per_volume=0: at least 1"),
        ({"patches": {"size": [32, 32], "foreground": 2.0}}, r"patches\.foreground=2\.0"),
        ({"patches": {"size": [32, 30]}}, "every side must be a multiple of 16"),
    ],
)
def test_volumes_that_cannot_be_are_named(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(FedaltError, match=message):
        volumes(tmp_path, **change)


def test_without_a_folder_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FEDALT_DATA", raising=False)
    with pytest.raises(DataError, match=r"set task\.folder .* or FEDALT_DATA"):
        volumes(tmp_path)

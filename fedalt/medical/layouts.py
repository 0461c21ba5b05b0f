"""Cases of known folder layouts: AMOS22, MM-WHS 2017, a plain one, and the abdomen pair.

AMOS22 (Ji et al. 2022, arXiv:2206.08023; Zenodo 7262581) has ``imagesTr/amos_0001.nii.gz`` and
its like in ``labelsTr``, and cases for validation in ``imagesVa`` and ``labelsVa``; numbers
below 500 are CT. Its ``dataset.json`` is not read: the names in it are not those of other
data sets ("arota", "postcava"), and the ids are fixed. MM-WHS (Zhuang et al. 2019,
arXiv:1902.07880) has ``ct_train_1001_image.nii.gz`` and ``ct_train_1001_label.nii.gz``.
Neither says from which hospital a case comes, so their cases are dealt to sites by chance.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fedalt.errors import ConfigError, DataError, nearest
from fedalt.medical.label_map import AMOS, MMWHS, read_label_map
from fedalt.medical.site_table import ENDINGS, MODALITIES, Case, Split, check_sites, stem

NO_SITE = ""
AMOS_FIRST_MR = 500
FILES = {
    "amos": "imagesTr/amos_0001.nii.gz and labelsTr/amos_0001.nii.gz",
    "mmwhs": "ct_train_1001_image.nii.gz and ct_train_1001_label.nii.gz, here or in folders",
    "plain": "<site>/<ct or mr>/<name>_image.nii.gz and <name>_labels.nii.gz",
    "abdomen": "ct_<name>_image.nii.gz and ct_<name>_labels.nii.gz, and the same for mr",
}


@dataclass(frozen=True)
class Deal:
    """How cases without a site are dealt, and how many are held out.

    ``sites`` and ``at_most`` count sites and training cases by modality (a modality that is
    not in ``sites`` is left out); ``test`` is the share held out where a layout has no test
    cases of its own, rounded to whole cases, always leaving one to train on.
    """

    sites: Mapping[str, int]
    at_most: Mapping[str, int] | None = None
    test: float = 0.0


ONE_EACH = Deal({"ct": 1, "mr": 1})


def find_cases(
    layout: str,
    root: str | Path,
    deal: Deal = ONE_EACH,
    rng: np.random.Generator | None = None,
) -> tuple[Case, ...]:
    """Return the cases of a folder in a layout: ``amos``, ``mmwhs``, ``plain`` or ``abdomen``.

    ``rng`` shuffles the cases before they are dealt (default: seed 0); ``plain`` and
    ``abdomen`` have sites of their own, and of ``deal`` follow only ``test``.
    Raises :class:`ConfigError` for an unknown layout or a deal that cannot be, and
    :class:`DataError` for a folder without cases, a missing label, or a site left without a
    training case.
    """
    layouts: dict[str, Callable[[Path], list[Case]]] = {
        "amos": _amos,
        "mmwhs": _mmwhs,
        "plain": _plain,
        "abdomen": _abdomen,
    }
    if layout not in layouts:
        raise ConfigError(f"unknown layout '{layout}'{nearest(layout, layouts)}")
    if not 0.0 <= deal.test < 1.0:
        raise ConfigError(f"the share of test cases is {deal.test}; it must be in [0, 1)")
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"the folder '{root}' of the layout '{layout}' does not exist")
    rng = np.random.default_rng(0) if rng is None else rng
    found = layouts[layout](root)
    if not found:
        raise DataError(f"'{root}' has no case of the layout '{layout}': expected {FILES[layout]}")
    if layout in ("plain", "abdomen"):
        cases = [c for group in _groups(found).values() for c in _hold_out(group, deal.test, rng)]
    else:
        cases = _dealt(found, deal, rng, root, hold_out=layout == "mmwhs")
    check_sites(cases)
    return tuple(sorted(cases, key=lambda case: (case.site, case.split != "train", case.name)))


def _amos(root: Path) -> list[Case]:
    cases = []
    splits: tuple[tuple[str, Split], ...] = (("Tr", "train"), ("Va", "test"))
    for part, split in splits:
        for image in _volumes(root / f"images{part}", "amos_*"):
            number = stem(image).removeprefix("amos_")
            if not number.isdigit():
                raise DataError(f"'{image}' is no AMOS file: expected amos_ and a number")
            modality = "ct" if int(number) < AMOS_FIRST_MR else "mr"
            label = _label(image, root / f"labels{part}" / image.name)
            cases.append(Case(stem(image), image, label, modality, NO_SITE, split, AMOS))
    return cases


def _mmwhs(root: Path) -> list[Case]:
    cases = []
    for image in _volumes(root, "**/*_train_*_image"):
        match = re.fullmatch(r"(ct|mr)_train_\d+", stem(image).removesuffix("_image"))
        if match is None:
            raise DataError(f"'{image}' is no MM-WHS file: expected ct_train_ or mr_train_")
        label = _label(image, _beside(image, "_label"))
        cases.append(Case(match[0], image, label, match[1], NO_SITE, "train", MMWHS))
    return cases


def _plain(root: Path) -> list[Case]:
    """``<site>/<modality>/<name>_image.nii.gz``; the nearest ``labels.json`` above holds."""
    cases = []
    for image in _volumes(root, "*/*/*_image"):
        modality, site = image.parent.name, image.parent.parent.name
        if modality not in MODALITIES:
            raise DataError(
                f"'{image.parent}' names no modality: a site's folders are {', '.join(MODALITIES)}"
            )
        name = f"{site}_{modality}_{stem(image).removesuffix('_image')}"
        label = _label(image, _beside(image, "_labels"))
        ids = _nearest_map(image, root, modality)
        cases.append(Case(name, image, label, modality, site, "train", ids))
    return cases


def _abdomen(root: Path) -> list[Case]:
    """``<modality>_<name>_image.nii.gz`` with ``labels.json``; a hospital for each modality."""
    cases = []
    for image in _volumes(root, "*_image"):
        name = stem(image).removesuffix("_image")
        modality = name.partition("_")[0]
        if modality not in MODALITIES:
            raise DataError(f"'{image}' must begin with a modality: {', '.join(MODALITIES)}")
        label = _label(image, _beside(image, "_labels"))
        ids = _nearest_map(image, root, modality)
        cases.append(Case(name, image, label, modality, f"{modality}_hospital", "train", ids))
    return cases


def _volumes(folder: Path, pattern: str) -> list[Path]:
    # Files that some systems leave beside the real ones begin with a dot.
    found = (path for ending in ENDINGS for path in folder.glob(pattern + ending))
    return sorted(path for path in found if not path.name.startswith("."))


def _beside(image: Path, ending: str) -> Path:
    """Return the path of a file whose name ends otherwise than in ``_image``."""
    name = stem(image)
    return image.with_name(name.removesuffix("_image") + ending + image.name.removeprefix(name))


def _label(image: Path, label: Path) -> Path:
    if not label.is_file():
        raise DataError(f"'{image}' has no label: '{label}' does not exist")
    return label


def _nearest_map(image: Path, root: Path, modality: str) -> dict[int, str]:
    folder = image.parent
    while True:
        if (folder / "labels.json").is_file():
            return read_label_map(folder / "labels.json", modality)
        if folder == root:
            raise DataError(f"'{image}' has no labels.json beside it or above it, up to '{root}'")
        folder = folder.parent


def _groups(cases: Sequence[Case]) -> dict[tuple[str, str], list[Case]]:
    """Return cases by site and modality."""
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        groups.setdefault((case.site, case.modality), []).append(case)
    return groups


def _hold_out(cases: Sequence[Case], share: float, rng: np.random.Generator) -> list[Case]:
    """Return the cases in a random order, the last ones of them for the test."""
    shuffled = [cases[place] for place in rng.permutation(len(cases))]
    held_out = min(round(share * len(cases)), len(cases) - 1)
    train = len(cases) - held_out
    return shuffled[:train] + [replace(case, split="test") for case in shuffled[train:]]


def _dealt(
    cases: Sequence[Case], deal: Deal, rng: np.random.Generator, root: Path, *, hold_out: bool
) -> list[Case]:
    """Deal each modality's shuffled training cases, then its test cases, to its sites in turn."""
    dealt = []
    for modality, sites in sorted(deal.sites.items()):
        if modality not in MODALITIES:
            raise ConfigError(f"unknown modality '{modality}'{nearest(modality, MODALITIES)}")
        own = [case for case in cases if case.modality == modality]
        if sites < 1 or not own:
            raise ConfigError(
                f"{sites} sites of the modality '{modality}' are asked for, and '{root}' has "
                f"{len(own)} such cases; ask for one site or more, or leave the modality out"
            )
        own = _hold_out(own, deal.test if hold_out else 0.0, rng)
        most = (deal.at_most or {}).get(modality)
        train = sum(case.split == "train" for case in own)
        if min(train, train if most is None else most) < sites:
            raise DataError(
                f"'{root}' gives {train} training cases of the modality '{modality}'"
                f"{'' if most is None else f' (at most {most} asked for)'} to {sites} sites: every "
                "site needs one; ask for fewer sites"
            )
        for split, limit in (("train", most), ("test", None)):
            part = [case for case in own if case.split == split][:limit]
            dealt += [
                replace(case, site=f"{modality}_{turn % sites + 1}")
                for turn, case in enumerate(part)
            ]
    return dealt

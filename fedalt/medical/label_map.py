"""Label maps: the ids of a label file by organ name, and from there to a task's classes.

Label ids differ between data sets and between modalities of one data set, names do not. A
task has an ordered tuple of organs; class 0 is background and class i + 1 is ``organs[i]``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedalt.data.folder import read_bytes
from fedalt.errors import ConfigError, DataError, nearest

# AMOS22's ids, in the order of Ji et al. 2022 (arXiv:2206.08023).
AMOS = dict(
    enumerate(
        (
            "spleen",
            "kidney_right",
            "kidney_left",
            "gallbladder",
            "esophagus",
            "liver",
            "stomach",
            "aorta",
            "inferior_vena_cava",
            "pancreas",
            "adrenal_gland_right",
            "adrenal_gland_left",
            "duodenum",
            "urinary_bladder",
            "prostate_uterus",
        ),
        start=1,
    )
)

# MM-WHS 2017's ids (Zhuang et al. 2019, arXiv:1902.07880).
MMWHS = {
    205: "myocardium",
    420: "left_atrium",
    500: "left_ventricle",
    550: "right_atrium",
    600: "right_ventricle",
    820: "aorta",
    850: "pulmonary_artery",
}

KNOWN_MAPS: Mapping[str, Mapping[int, str]] = {"amos": AMOS, "mmwhs": MMWHS}


def read_label_map(path: Path, modality: str) -> dict[int, str]:
    """Read ``{"1": "spleen", ...}``, or such a map for each modality, from a JSON file.

    Raises :class:`DataError` naming the file for anything else, and for a file by modality
    that lacks ``modality``.
    """
    try:
        data = json.loads(read_bytes(path))
    except ValueError as error:
        raise DataError(f"the label map '{path}' is no JSON ({error}); correct it") from error
    return parse_label_map(data, modality, f"the label map '{path}'")


def parse_label_map(data: Any, modality: str, where: str) -> dict[int, str]:
    """Return ids to names from plain data; ``where`` begins the messages of its errors."""
    if not isinstance(data, Mapping) or not data:
        raise DataError(f'{where} must map ids to organ names, as in {{"1": "spleen"}}')
    if all(isinstance(value, Mapping) for value in data.values()):
        if modality not in data:
            raise DataError(
                f"{where} has no names for the modality '{modality}', only for "
                f"{', '.join(map(str, data))}; add them"
            )
        return parse_label_map(data[modality], modality, f"{where}, '{modality}',")
    return {_number(key, where): _name(key, name, where) for key, name in data.items()}


def _number(key: object, where: str) -> int:
    try:
        number = int(str(key))
    except ValueError:
        number = 0
    if number < 1:
        raise DataError(f"{where} has the id '{key}'; ids are whole numbers from 1 on")
    return number


def _name(key: object, name: object, where: str) -> str:
    if not isinstance(name, str) or not name:
        raise DataError(f"{where} gives id {key} the name {name!r}; it must be an organ's name")
    return name


def class_of_id(
    ids: Mapping[int, str], organs: Sequence[str], merge: Mapping[str, Sequence[str]] | None = None
) -> dict[int, int]:
    """Return the class of each label id that belongs to one of the task's organs.

    ``merge`` gives an organ of the task the names it is made of, such as ``lung`` to the
    names of its lobes. Ids of other structures are left out: they are background.
    """
    class_of_name = {}
    for index, organ in enumerate(organs):
        for name in parts_of(organ, merge):
            class_of_name[name] = index + 1
    return {number: class_of_name[name] for number, name in ids.items() if name in class_of_name}


def parts_of(organ: str, merge: Mapping[str, Sequence[str]] | None) -> tuple[str, ...]:
    """Return the names an organ goes by in label maps: its own and those merged into it."""
    return (organ, *(merge or {}).get(organ, ()))


def known_classes(classes: Mapping[int, int], organs: Sequence[str]) -> np.ndarray:
    """Return which classes (1 + organs,) a case labels, as booleans; background always."""
    known = np.zeros(1 + len(organs), bool)
    known[[0, *classes.values()]] = True
    return known


def to_classes(label: np.ndarray, classes: Mapping[int, int]) -> np.ndarray:
    """Return classes as uint8 in place of whole-numbered ids from 0 on, of any shape."""
    table = np.zeros(max(classes, default=0) + 1, np.uint8)
    table[list(classes)] = list(classes.values())
    # Ids above the last one of the map are background, whose id 0 always has class 0.
    classed: np.ndarray = table[np.where(label < len(table), label, 0)]
    return classed


def check_organs(
    organs: Sequence[str],
    maps: Mapping[str, Mapping[int, str]],
    merge: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Refuse organs that nobody labels; ``maps`` has ids to names by where they come from.

    Raises :class:`ConfigError` for an organ, or a name merged into it, that is in no label
    map, for one that is named twice, and for a map that has none of the organs.
    """
    names = {name for ids in maps.values() for name in ids.values()}
    places = _listed(maps)
    merge = merge or {}
    for organ in merge:
        if organ not in organs:
            raise ConfigError(f"merge makes '{organ}', no organ here{nearest(organ, organs)}")
    wanted = [name for organ in organs for name in parts_of(organ, merge)]
    for name in wanted:
        if wanted.count(name) > 1:
            raise ConfigError(f"the organ '{name}' is named twice; name it once")
    for organ in organs:
        for name in merge.get(organ) or (organ,):
            if name not in names:
                raise ConfigError(
                    f"unknown organ '{name}'{_near(name, names)}: it is not in {places}"
                )
    if len(organs) > 254:
        raise ConfigError(f"{len(organs)} organs are named; a label holds at most 254")
    for place, ids in maps.items():
        if not class_of_id(ids, organs, merge):
            raise ConfigError(
                f"{place} labels none of {', '.join(organs)}; its label map has "
                f"{_listed(sorted(set(ids.values())))}"
            )


def _near(name: str, names: set[str]) -> str:
    hint = nearest(name, names)
    return hint if "did you mean" in hint else ""


def _listed(names: Sequence[str] | Mapping[str, Any], most: int = 8) -> str:
    shown = list(names)[:most]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")

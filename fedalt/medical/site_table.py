"""The cases of a federation: which image and label file lie at which site, in which modality.

A site table is CSV with a header, or YAML with a list ``cases``; the columns are ``image``,
``label``, ``modality``, ``site``, ``split`` and ``labels``, and ``name`` if files' names do not
tell cases apart. ``labels`` says which organ a label id is: the path of a JSON file, the name
of a known map (``amos``, ``mmwhs``, or one of the YAML file's own ``label_maps``), or, in YAML,
the map itself.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from fedalt.data.folder import read_bytes
from fedalt.errors import DataError, nearest
from fedalt.medical.label_map import KNOWN_MAPS, parse_label_map, read_label_map

MODALITIES = ("ct", "mr")
SPLITS = ("train", "test")
COLUMNS = ("image", "label", "modality", "site", "split", "labels")
ENDINGS = (".nii.gz", ".nii")
Split = Literal["train", "test"]


@dataclass(frozen=True)
class Case:
    """One patient's volume and its label: where they lie, and the names of the label's ids."""

    name: str
    image: Path
    label: Path
    modality: str
    site: str
    split: Split
    ids: Mapping[int, str] = field(hash=False)


def read_site_table(path: str | Path, root: str | Path | None = None) -> tuple[Case, ...]:
    """Read a site table; relative paths in it start at ``root``, else at the table's folder.

    Raises :class:`DataError` naming the table, row and column for a missing column or value,
    an unknown modality, split or label map, a file that is not there, and a case given twice.
    """
    path = Path(path)
    rows, maps = _yaml_rows(path) if path.suffix in (".yaml", ".yml") else (_csv_rows(path), {})
    if not rows:
        raise DataError(f"the site table '{path}' has no cases; add a row for each volume")
    base = Path(root) if root is not None else path.parent
    cases = tuple(
        _case(row, f"'{path}', row {number}", base, maps) for number, row in enumerate(rows, 1)
    )
    _check_twice(cases, path)
    return cases


def check_sites(cases: Iterable[Case], unseen: Iterable[str] = ()) -> None:
    """Raise :class:`DataError` naming the sites that have no case to train on.

    ``unseen`` names sites that are to be tested on alone.
    """
    cases = tuple(cases)
    train = {case.site for case in cases if case.split == "train"}
    idle = sorted({case.site for case in cases} - train - set(unseen))
    if idle:
        sites = ", ".join(f"'{site}'" for site in idle)
        raise DataError(
            f"no training case at {sites}: every site needs one; set the split of one of its "
            "cases to train, or leave the site out"
        )


def stem(path: Path) -> str:
    """Return a file's name without ``.nii`` or ``.nii.gz``."""
    for ending in ENDINGS:
        if path.name.endswith(ending):
            return path.name.removesuffix(ending)
    return path.stem


def _case(
    row: Mapping[str, Any], where: str, base: Path, maps: Mapping[str, Mapping[Any, Any]]
) -> Case:
    for column in COLUMNS:
        if row.get(column) in (None, ""):
            raise DataError(f"{where}: the column '{column}' is missing or empty; fill it in")
    for column in row:
        if column not in (*COLUMNS, "name"):
            raise DataError(
                f"{where}: unknown column '{column}'{nearest(str(column), (*COLUMNS, 'name'))}"
            )
    modality = _one_of(row, "modality", MODALITIES, where)
    image = _file(row, "image", where, base)
    return Case(
        name=str(row.get("name") or stem(image)),
        image=image,
        label=_file(row, "label", where, base),
        modality=modality,
        site=str(row["site"]),
        split=cast(Split, _one_of(row, "split", SPLITS, where)),
        ids=_ids(row["labels"], modality, where, base, maps),
    )


def _one_of(row: Mapping[str, Any], column: str, allowed: Sequence[str], where: str) -> str:
    value = str(row[column]).strip().lower()
    if value not in allowed:
        # The known values are few: a list of them helps more than a guess at one.
        raise DataError(
            f"{where}: the column '{column}' has '{row[column]}', no {column} "
            f"(known: {', '.join(allowed)})"
        )
    return value


def _file(row: Mapping[str, Any], column: str, where: str, base: Path) -> Path:
    path = base / str(row[column])
    if not path.is_file():
        raise DataError(f"{where}: the column '{column}' names '{path}', and no such file exists")
    return path


def _ids(
    value: Any, modality: str, where: str, base: Path, maps: Mapping[str, Mapping[Any, Any]]
) -> dict[int, str]:
    place = f"{where}: the column 'labels'"
    if isinstance(value, Mapping):
        return parse_label_map(value, modality, place)
    named = {**KNOWN_MAPS, **maps}
    if value in named:
        return parse_label_map(named[value], modality, f"{place}, the label map '{value}',")
    path = base / str(value)
    if not path.is_file():
        raise DataError(
            f"{place} has '{value}': neither the file '{path}' nor a label map"
            f"{nearest(str(value), named)}"
        )
    return read_label_map(path, modality)


def _check_twice(cases: Sequence[Case], path: Path) -> None:
    images = Counter(case.image.resolve() for case in cases)
    names = Counter((case.site, case.name) for case in cases)
    for number, case in enumerate(cases, 1):
        if images[case.image.resolve()] > 1:
            raise DataError(
                f"'{path}', row {number}: the column 'image' names '{case.image}', which "
                "another row names as well; keep one of them"
            )
        if names[case.site, case.name] > 1:
            raise DataError(
                f"'{path}', row {number}: site '{case.site}' has two cases '{case.name}'; "
                "tell them apart in a column 'name'"
            )


def _text(path: Path) -> str:
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"the site table '{path}' is no UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from error


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(_text(path)), skipinitialspace=True, restkey="(no header)")
    for column in COLUMNS:
        if column not in (reader.fieldnames or ()):
            raise DataError(
                f"the site table '{path}' has no column '{column}'; its header must name "
                f"{', '.join(COLUMNS)}"
            )
    # A blank behind a site's name would make another site of it.
    return [{k: v.strip() if isinstance(v, str) else v for k, v in row.items()} for row in reader]


def _yaml_rows(path: Path) -> tuple[list[dict[str, Any]], dict[str, Mapping[Any, Any]]]:
    import yaml

    try:
        data = yaml.safe_load(_text(path))
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise DataError(f"the site table '{path}' is no YAML: {reason}") from error
    if isinstance(data, Mapping) and set(data) - {"cases", "label_maps"}:
        odd = str(sorted(map(str, set(data) - {"cases", "label_maps"}))[0])
        raise DataError(f"'{path}': unknown key '{odd}'{nearest(odd, ('cases', 'label_maps'))}")
    rows = data.get("cases") if isinstance(data, Mapping) else data
    maps = (data.get("label_maps") if isinstance(data, Mapping) else None) or {}
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise DataError(
            f"the site table '{path}' must have a list 'cases', each with {', '.join(COLUMNS)}"
        )
    if not isinstance(maps, Mapping):
        raise DataError(f"'{path}': 'label_maps' must map names to label maps")
    return [dict(row) for row in rows], dict(maps)

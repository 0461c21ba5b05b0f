"""The scenario's tasks as a YAML file describes them: phantoms, and folders of volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedalt.build import construct
from fedalt.cli.values import check_values
from fedalt.data.folder import data_folder
from fedalt.errors import ConfigError, DataError
from fedalt.medical.layouts import ONE_EACH, Deal, find_cases
from fedalt.medical.prepare import Preparation
from fedalt.medical.site_table import Case, read_site_table
from fedalt.scenarios.unpaired_ct_mr.networks import NetworkSettings
from fedalt.scenarios.unpaired_ct_mr.phantom_source import PhantomSettings, PhantomSource
from fedalt.scenarios.unpaired_ct_mr.task import SegmentationTask
from fedalt.scenarios.unpaired_ct_mr.volume_source import PatchSettings, VolumeSource
from fedalt.scenarios.unpaired_ct_mr.warps import Warp
from fedalt.seeds import Seeds


def phantom_task(
    network: Mapping[str, Any],
    embeddings: str,
    phantoms: Mapping[str, Any],
    warp: Mapping[str, Any],
    root: str | None,
    seed: int,
    template: str = "V3",
    device: str = "cpu",
) -> SegmentationTask:
    """Build the task on phantoms; see :class:`PhantomSettings` and :class:`NetworkSettings`.

    ``root`` is the folder that may hold the label map of a real abdomen (default FEDALT_DATA),
    ``device`` where the server judges.
    """
    shape = _made(Warp, warp, "task.warp")
    settings = _made(PhantomSettings, {**phantoms, "warp": shape, "seed": seed}, "task.phantoms")
    source = PhantomSource(settings, root)
    built = _network(network, len(settings.size))
    return SegmentationTask(source, built, embeddings, template, device)


def volume_task(
    network: Mapping[str, Any],
    embeddings: str,
    layout: str | None,
    table: str | None,
    folder: str | None,
    deal: Mapping[str, Any],
    preparation: Mapping[str, Any],
    patches: Mapping[str, Any],
    unseen: Sequence[str],
    cache: str | None,
    seed: int,
    template: str = "V3",
    device: str = "cpu",
) -> SegmentationTask:
    """Build the task on NIfTI volumes: those of a site table, or of a folder in a known layout.

    ``folder`` defaults to FEDALT_DATA/abdomen, ``cache`` to the user's cache; the
    report judges on ``device``. Raises :class:`ConfigError` for settings and :class:`DataError`
    for files that do not fit.
    """
    cases = _cases(layout, table, folder, deal, seed)
    prepared = _made(Preparation, preparation, "task.preparation")
    drawn = _made(PatchSettings, patches, "task.patches")
    kept = None if cache is None else Path(cache).expanduser()
    source = VolumeSource(cases, prepared, drawn, unseen, kept)
    built = _network(network, len(drawn.size))
    return SegmentationTask(source, built, embeddings, template, device)


def _cases(
    layout: str | None, table: str | None, folder: str | None, deal: Mapping[str, Any], seed: int
) -> tuple[Case, ...]:
    if (layout is None) == (table is None):
        raise ConfigError("task: name either a site table (task.table) or a task.layout")
    if table is not None:
        base = None if folder is None else Path(folder).expanduser()
        return read_site_table(Path(table).expanduser(), base)
    assert layout is not None
    if folder is None:
        named = data_folder()
        if not named.named:
            raise DataError(
                "no folder of volumes is named: set task.folder to one in the layout "
                f"'{layout}', or FEDALT_DATA to a folder that holds abdomen/"
            )
        folder = str(named.path / "abdomen")
    rng = Seeds(seed).at("deal").numpy()
    dealt = _made(Deal, {**vars(ONE_EACH), **deal}, "task.deal")
    return find_cases(layout, Path(folder).expanduser(), dealt, rng)


def _network(settings: Mapping[str, Any], dims: int) -> NetworkSettings:
    made: NetworkSettings = _made(NetworkSettings, {"dims": dims, **settings}, "task.network")
    return made


def _made(kind: Any, values: Mapping[str, Any], where: str) -> Any:
    """Return ``kind`` of named values, lists as tuples and null as the default.

    Raises :class:`ConfigError` naming a setting that is unknown or of the wrong type.
    """
    check_values(kind, values, where)
    # A name that is unknown stays, to be refused, whatever its value.
    known = kind.__dataclass_fields__
    given = {k: _frozen(v) for k, v in values.items() if v is not None or k not in known}
    return construct(kind, given, where)


def _frozen(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, Mapping):
        return {key: _frozen(item) for key, item in value.items() if item is not None}
    return value

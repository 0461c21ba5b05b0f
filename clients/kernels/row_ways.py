"""Which way has the gradients of a stage's rows: the one told, or the fastest that is right.

Before a stage first trains, some of its rows are taken alone, one by one, and each way is held
against their clipped gradients: a way that differs is never used. The remaining ones are timed on
a batch of the expected size, and what was found is recorded with the run, so that a resumed run
takes it over. Both happen on the model as received; no reason given tells of a row's values.

A loss that is no mean over rows, or a layer that changes a buffer as rows pass, would let one row
move what others contribute, beyond any clip: both are refused. That is seen on a few rows, and is
no proof; a task's loss has to be what :class:`fedalt.task.GradientTask` asks for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from fedalt.clients.kernels.client import MISHAPS, Client
from fedalt.clients.kernels.dpsgd import Mechanism, begin_mechanism
from fedalt.clients.kernels.evaluate import Batch, lent_randomness, take
from fedalt.clients.kernels.model import ReusedModel
from fedalt.clients.kernels.row_gradients import UnfitError, opened
from fedalt.clients.kernels.stages import Stage, spec_of
from fedalt.errors import ConfigError
from fedalt.privacy.sampling import row_sample

WAYS = ("ghost", "hooks", "functorch")
"""By what they cost for most models: the first that is right bounds how long others may take."""
AGREEMENT = {"float32": 1e-3, "bfloat16": 5e-2}
"""How far a way may be from rows alone, relative to the length of their clipped sum."""
HOPELESS = 4.0
"""How many times the best a first run may take before a way is timed no further."""
_ROWS = 4


@dataclass(frozen=True)
class WayChoice:
    """What was chosen for a stage: milliseconds a batch of the ways, and who was left out."""

    way: str
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that :meth:`from_dict` reads."""
        return {
            "way": self.way,
            "milliseconds": dict(self.milliseconds),
            "left_out": dict(self.left_out),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> WayChoice:
        """Read what :meth:`to_dict` returned; raises :class:`ConfigError` for another way."""
        if data["way"] not in WAYS:
            raise ConfigError(f"'{data['way']}' is no way to have gradients of single rows")
        return cls(str(data["way"]), data["milliseconds"], data["left_out"])


@dataclass
class WayTable:
    """The ways chosen so far, by the stage's scope."""

    choices: dict[str, WayChoice] = field(default_factory=dict)

    def of(self, model: ReusedModel, client: Client, stage: Stage) -> str:
        """Return a stage's way, settled on the model as it is when first asked for.

        Raises :class:`ConfigError` naming the place for a loss that mixes rows, and where no way
        fits.
        """
        if stage.scope not in self.choices:
            self.choices[stage.scope] = _settle(model, client, stage)
        return self.choices[stage.scope].way


@dataclass(frozen=True)
class Private:
    """What a private stage needs to run: its mechanism, and its way to gradients of rows."""

    mechanism: Mechanism
    way: str


def begin_private(model: ReusedModel, client: Client, ways: WayTable) -> list[Private | None]:
    """Return what each of a client's stages needs to hide its rows; None for one without privacy.

    The model must hold what was received.
    """
    found: list[Private | None] = []
    for stage in client.stages:
        mechanism = begin_mechanism(stage, client.site)
        way = "" if mechanism is None else ways.of(model, client, stage)
        found.append(None if mechanism is None else Private(mechanism, way))
    return found


def _settle(model: ReusedModel, client: Client, stage: Stage) -> WayChoice:
    spec = spec_of(stage.phase)
    assert spec is not None
    params = list(model.choose(stage.arrays).values())
    few = _batch(model, client, stage, _ROWS)
    with _judging(model, stage):
        _check_rows(model, few, client)
        wanted = _clipped("alone", model, params, few, spec.clip)
        found: dict[str, str] = {}
        for way in WAYS if spec.per_sample == "auto" else (spec.per_sample,):
            found[way] = _fault(way, model, params, few, spec.clip, wanted)
        fitting = [way for way, fault in found.items() if not fault]
        left_out = {way: fault for way, fault in found.items() if fault}
        if not fitting:
            reasons = "; ".join(f"{way}: {fault}" for way, fault in left_out.items())
            raise ConfigError(
                f"{client.where}: gradients of single rows cannot be had ({reasons}); choose "
                "another privacy.per_sample, or layers that Opacus knows"
            )
        if len(fitting) == 1:
            return WayChoice(fitting[0], {}, left_out)
        expected = round(row_sample(stage.phase, len(stage.rows)).expected)
        batch = _batch(model, client, stage, max(1, expected))
        spent = _timed(fitting, model, params, batch, spec.clip, left_out)
    if not spent:
        raise ConfigError(f"{client.where}: no way held for a whole batch ({left_out})")
    return WayChoice(min(spent, key=lambda way: spent[way]), spent, left_out)


def _batch(model: ReusedModel, client: Client, stage: Stage, rows: int) -> Batch:
    chosen = torch.from_numpy(stage.rows[:rows]).to(model.device)
    return model.laid_out(take(client.data, chosen))


@contextmanager
def _judging(model: ReusedModel, stage: Stage) -> Iterator[None]:
    """Let only layers with parameters train, so that dropout stays out of comparisons."""
    module = model.module
    former = [(m, m.training) for m in module.modules()]
    try:
        with model.still(), lent_randomness(stage.seeds.at("ways"), model.device):
            yield
    finally:
        for layer, training in former:
            layer.training = training


def _check_rows(model: ReusedModel, batch: Batch, client: Client) -> None:
    """Refuse a loss whose rows depend on each other, and layers that sum rows up."""
    buffers = {name: model.tensor(name).clone() for name in model.distinct if model.is_buffer(name)}
    model.module.train()
    with torch.no_grad(), model.autocast():
        model.task.loss(model.module, batch)
    for name, former in buffers.items():
        if not torch.equal(model.tensor(name), former):
            raise ConfigError(
                f"{client.where}: buffer '{name}' sums up the rows that pass, which no noise "
                "covers; take a layer without running statistics, such as GroupNorm"
            )
    model.module.eval()
    with torch.no_grad(), model.autocast():
        whole = float(model.task.loss(model.module, batch)[0])
        rows = [tuple(part[i : i + 1] for part in batch) for i in range(len(batch[0]))]
        alone = [float(model.task.loss(model.module, row)[0]) for row in rows]
    mean = sum(alone) / len(alone)
    if abs(whole - mean) > AGREEMENT[model.precision] * (1e-3 + max(map(abs, alone))):
        # Without the numbers, which are the rows' own.
        raise ConfigError(
            f"{client.where}: the loss of {len(rows)} rows is not the mean of each alone: its rows "
            "depend on each other, so that no clip bounds what one changes; write the task's loss "
            "as a mean over rows on their own"
        )
    _train_layers(model.module)


def _train_layers(module: torch.nn.Module) -> None:
    # Opacus's hooks note what passes through layers in training only.
    for layer in module.modules():
        if any(p.requires_grad for p in layer.parameters(recurse=False)):
            layer.training = True


def _clipped(
    way: str, model: ReusedModel, params: Sequence[Any], batch: Batch, bound: float
) -> list[torch.Tensor]:
    with opened(way, model, params) as clipped:
        return clipped(batch, bound).sums


def _fault(
    way: str,
    model: ReusedModel,
    params: Sequence[Any],
    batch: Batch,
    bound: float,
    wanted: Sequence[torch.Tensor],
) -> str:
    """Say why a way may not be used; empty if it may."""
    try:
        found = _clipped(way, model, params, batch, bound)
    except (UnfitError, *MISHAPS, AttributeError, NotImplementedError) as error:
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    apart = sum(float((f - w).double().square().sum()) for f, w in zip(found, wanted, strict=True))
    size = sum(float(w.double().square().sum()) for w in wanted)
    if apart**0.5 <= AGREEMENT[model.precision] * max(size**0.5, 1e-6 * bound):
        return ""
    return "its sum is not that of rows taken alone"


def _timed(
    ways: Sequence[str],
    model: ReusedModel,
    params: Sequence[Any],
    batch: Batch,
    bound: float,
    left_out: dict[str, str],
) -> dict[str, float]:
    """Return milliseconds a batch of each way that holds for a whole batch."""
    spent: dict[str, float] = {}
    for way in ways:
        try:
            with opened(way, model, params) as clipped:
                times = []
                for _ in range(3):
                    begin = time.perf_counter()
                    clipped(batch, bound)
                    if model.device.type == "cuda":
                        torch.cuda.synchronize(model.device)
                    times.append(1000 * (time.perf_counter() - begin))
                    if spent and times[-1] > HOPELESS * min(spent.values()):
                        break
        except (UnfitError, *MISHAPS) as error:
            left_out[way] = (str(error).strip() or type(error).__name__).splitlines()[0]
            continue
        spent[way] = round(min(times), 3)
    return spent

"""Which mode computes a phase's cohorts: the one told, or the fastest of a short timed probe.

The probe trains a few of the first cohort's clients in each mode that could pay, throws the
results away, and compares them with the reference first: a mode that does not agree is never
chosen (batch normalisation, for one, mixes the rows that ``batched`` takes apart). What the
probe found is recorded with the run, and a resumed run takes it over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from fedalt.alternation.local import LOCAL_STATE
from fedalt.clients.kernels.base import Order, SiteContext, Work
from fedalt.clients.kernels.client import MISHAPS, Client
from fedalt.clients.kernels.model import initial_arrays
from fedalt.errors import ConfigError
from fedalt.modes import SEQUENTIAL, Mode
from fedalt.privacy.stages import is_private

WORTH_PROBING = 5.0
"""Seconds of work that a run must still have ahead, at the reference's speed."""
COMPILING = 12.0
"""Seconds that compiling a step takes, about: what it may save must be more."""
SEARCH = 0.15
"""The share of the work ahead that a search may have taken before it looks no further."""
SAVING = 0.3
"""The share of the time that compiling saves, about."""
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}
"""How far a mode may end from the reference, relative to the length of the client's update.

Half of the clients must end that near. A loss that a mode cannot compute is wrong at every step
of nearly every client, while rounding now and then switches one hidden unit of one client, which
Adam magnifies (1.4e-2 was measured on a GPU, 5e-5 for others).
"""
FURTHEST = {"float32": 2e-2, "bfloat16": 2e-1}
"""How far any one client may: where only its batches are short, it alone shows a wrong loss.

The least that wrong losses were seen to bring is 2.3e-2 (a sum over rows, under Adam).
"""
_SAMPLE = 3
_FAILS = "it fails where the reference does not"

Run = Callable[[Mode, Order, Sequence[SiteContext]], list[Work | Exception]]


@dataclass(frozen=True)
class Choice:
    """What was chosen for a phase, and why: milliseconds a client, and who was left out."""

    mode: Mode
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that :meth:`from_dict` reads."""
        return {
            "mode": str(self.mode),
            "milliseconds": dict(self.milliseconds),
            "left_out": dict(self.left_out),
            "note": self.note,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Choice:
        """Read what :meth:`to_dict` returned."""
        return cls(Mode.read(data["mode"]), data["milliseconds"], data["left_out"], data["note"])


def settle(
    told: Mode, order: Order, sites: Sequence[SiteContext], client: Client, run: Run
) -> Choice:
    """Take the mode that was told, if it agrees with the reference on the first clients.

    Raises :class:`ConfigError` with the reason if it does not.
    """
    mode = _with_width(told, order, sites, client)
    if mode in (SEQUENTIAL, Mode(channels_last=True)):
        return Choice(mode, note="told")
    wanted = _tried(SEQUENTIAL, order, sites[:_SAMPLE], run)
    error = next((w for w in wanted if isinstance(w, Exception)), None)
    if error is not None:
        # The reference fails too, so the client is at fault, and its reply will say so.
        return Choice(mode, note="told; the first clients fail in any mode")
    reason = _disagreement(mode, order, sites[:_SAMPLE], wanted, run)
    if reason:
        raise ConfigError(
            f"phase '{order.phase.name}': engine.mode={told} cannot compute it: {reason}; "
            "choose engine.mode=auto or sequential"
        )
    return Choice(mode, note="told")


def probe(order: Order, sites: Sequence[SiteContext], client: Client, run: Run) -> Choice:
    """Time the modes that could pay and choose the fastest that agrees with the reference."""
    sample, begin = list(sites[:_SAMPLE]), time.perf_counter()
    run(SEQUENTIAL, order, [_copy(sample[0])])
    seconds, wanted = _timed(SEQUENTIAL, order, sample, run)
    left = len(sites) * max(1, order.rounds - order.round + 1) / order.workers
    spent = {SEQUENTIAL: seconds}
    if any(isinstance(work, Exception) for work in wanted):
        return Choice(SEQUENTIAL, note="the first clients fail, so nothing could be compared")
    if seconds * left < WORTH_PROBING:
        return _chosen(spent, {}, f"about {seconds * left:.1f} s of work: not worth a probe")
    left_out: dict[str, str] = {}
    for mode in _candidates(order, sites, client):
        best, searched = min(spent.values()), time.perf_counter() - begin
        if searched > SEARCH * max(best * left, WORTH_PROBING):
            left_out[str(mode)] = (
                f"the search took {searched:.0f} s of about {best * left:.0f} s of work already"
            )
            continue
        if mode.compiled and best * left * SAVING < COMPILING:
            left_out[str(mode)] = f"about {best * left:.0f} s of work: compiling would not pay"
            continue
        if mode.batched and mode.compiled and replace(mode, compiled=False) not in spent:
            left_out[str(mode)] = "batched was left out"
            continue
        reason = _disagreement(mode, order, sample, wanted, run)
        if reason:
            left_out[str(mode)] = reason
            continue
        some = list(sites[: max(_SAMPLE, mode.clients)])
        spent[mode] = min(_timed(mode, order, some, run)[0] for _ in range(2))
    return _chosen(spent, left_out, "probed")


def _chosen(spent: Mapping[Mode, float], left_out: Mapping[str, str], note: str) -> Choice:
    mode = min(spent, key=lambda m: spent[m])
    times = {str(m): round(1000 * seconds, 3) for m, seconds in spent.items()}
    return Choice(mode, times, left_out, note)


def _candidates(order: Order, sites: Sequence[SiteContext], client: Client) -> Iterator[Mode]:
    images = any(a.ndim == 4 for a in order.arrays.values())
    if images:
        yield Mode(channels_last=True)
    batched = _with_width(Mode(batched=True), order, sites, client)
    if batched.clients > 1:
        yield batched
    yield Mode(compiled=True, channels_last=images)
    if batched.clients > 1:
        yield replace(batched, compiled=True)


def _with_width(mode: Mode, order: Order, sites: Sequence[SiteContext], client: Client) -> Mode:
    """Say how many clients a batch holds, where the mode leaves that open."""
    if not mode.batched or mode.clients:
        return mode
    cohort = -(-len(sites) // order.workers)
    weights = sum(order.arrays[n].nbytes for n in order.returns if n in order.arrays)
    data = sum(part[:1].nbytes for part in client.data) * len(client.rows)
    width = _room(torch.device(order.device)) // max(1, weights + data // 8)
    width = max(1, min(cohort, width))
    # As many batches as that takes, evenly filled.
    return replace(mode, clients=-(-cohort // -(-cohort // width)))


def _room(device: torch.device) -> int:
    """Bytes that a batch's weights may take: what stays in a core's cache, or half of a GPU's."""
    if device.type != "cuda":
        return 2**20
    free, _ = torch.cuda.mem_get_info(device)
    # Weights, gradients, optimiser slots and activations, several times over.
    return int(free) // 16


def _timed(
    mode: Mode, order: Order, sites: Sequence[SiteContext], run: Run
) -> tuple[float, list[Work | Exception]]:
    """Return seconds a client, and what the clients brought; their state stays as it was."""
    clock = time.perf_counter if order.device.startswith("cuda") else time.process_time
    start = clock()
    works = _tried(mode, order, sites, run)
    return (clock() - start) / len(sites), works


def _tried(
    mode: Mode, order: Order, sites: Sequence[SiteContext], run: Run
) -> list[Work | Exception]:
    """Return what clients brought, and among it what they would keep; their state stays."""
    copies = [_copy(site) for site in sites]
    return [
        work
        if isinstance(work, Exception)
        else replace(work, arrays={**work.arrays, **_kept(order, site)})
        for work, site in zip(run(mode, order, copies), copies, strict=True)
    ]


def _kept(order: Order, site: SiteContext) -> dict[str, np.ndarray]:
    """Return the arrays that an order lets a site keep, as the site has them."""
    names = [name for name in order.keeps if f"{LOCAL_STATE}{name}" in site.state]
    return {name: site.state[f"{LOCAL_STATE}{name}"] for name in names}


def _disagreement(
    mode: Mode, order: Order, sites: Sequence[SiteContext], wanted: Sequence[Any], run: Run
) -> str:
    """Say why a mode may not stand in for the reference; empty if it may.

    Where rows or clients are private, only that it may not: errors and distances come from
    training without secret noise, and what is said here leaves the site.
    """
    private = is_private(order.phase)
    try:
        found = _tried(mode, order, sites, run)
    except MISHAPS as error:
        return _FAILS if private else str(error).strip().splitlines()[0]
    failed = next((work for work in found if isinstance(work, Exception)), None)
    if failed is not None:
        return _FAILS if private else f"{_FAILS}: {failed}"
    works = [work for work in found if isinstance(work, Work)]
    starts = [_start(order, site) for site in sites]
    gaps = [_gap(*three) for three in zip(works, wanted, starts, strict=True)]
    most, furthest = TOLERANCE[order.precision], FURTHEST[order.precision]
    near = sum(gap <= most for gap in gaps)
    # A gap that is no number is neither near nor within what one client may.
    if 2 * near >= len(gaps) and all(gap <= furthest for gap in gaps):
        return ""
    if private:
        return "its results do not agree with the reference's"
    adam = str(order.phase.params.get("optimizer", "")).startswith("adam")
    doubt = ", or is it rounding, which Adam's first steps magnify?" if adam else "?"
    return (
        f"its results are {', '.join(f'{gap:.1e}' for gap in gaps)} of an update away from the "
        f"reference's (half of them at most {most:g}, each at most {furthest:g}); is the loss no "
        f"mean over rows that do not depend on each other{doubt}"
    )


def _start(order: Order, site: SiteContext) -> Mapping[str, np.ndarray]:
    """Return the arrays that a client trains on from: those sent, and its own."""
    if not order.keeps:
        return order.arrays
    first = initial_arrays(site.task, site.seeds.root)
    own = {name: first[name] for name in order.keeps if name in first}
    return {**own, **_kept(order, site), **order.arrays}


def _gap(work: Work, reference: Work, start: Mapping[str, np.ndarray]) -> float:
    """Return the distance of two results, relative to how far the reference went."""
    apart = moved = size = 0.0
    for name, values in reference.arrays.items():
        apart += float(np.square(np.subtract(work.arrays[name], values, dtype=np.float64)).sum())
        size += float(np.square(values, dtype=np.float64).sum())
        if name in start:
            step = np.subtract(values, start[name], dtype=np.float64)
            moved += float(np.square(step).sum())
    # Rounding of the weights themselves is no disagreement, however short the step.
    return float(np.sqrt(apart) / max(np.sqrt(moved), 1e-3 * np.sqrt(size), 1e-12))


def _copy(site: SiteContext) -> SiteContext:
    return replace(site, state=dict(site.state))

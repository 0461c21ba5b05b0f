"""Worker processes that share a cohort: each runs the kernels on some of its clients.

Workers are forked, so that data, models and compiled programs are there without a copy; arrays
go through shared memory, everything else as JSON. The split is longest first, which evens the
load out; a client's result does not depend on it. A worker that dies (out of memory, say) is
replaced and its clients run once more: their state is changed by a reply only.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch

from fedalt.clients.kernels import KernelTable
from fedalt.clients.kernels.base import Order, SiteContext, Work
from fedalt.clients.orders import order_facts, read_order, read_sites, states_of
from fedalt.clients.shared import Region, by_name
from fedalt.errors import FedaltError
from fedalt.task import Task
from fedalt.wire.report import Applied

_ATTEMPTS = 2
"""How often a client is run whose worker died."""
Run = Callable[[Order, Sequence[SiteContext]], Sequence[Work | Exception]]
"""Compute a cohort in the process at hand."""


class ClientError(FedaltError):
    """A client failed in a worker; the message is the whole trace."""


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    back: Region


class Pool:
    """Worker processes for one task, forked when first used.

    ``run`` computes clients in the process at hand; ``kernels`` are those it uses.
    """

    def __init__(self, count: int, task: Task, kernels: KernelTable, run: Run) -> None:
        self._count, self._task, self._kernels, self._run = count, task, kernels, run
        self._broadcast = Region()
        self._workers: list[_Worker] = []

    def __call__(self, order: Order, sites: Sequence[SiteContext]) -> list[Work | Exception]:
        """Return each client's work or its error; the sites' states are brought up to date."""
        found: dict[int, Work | Exception] = {}
        sent = {
            "order": order_facts(order),
            "arrays": self._broadcast.write(order.arrays),
            "kernels": self._kernels.export_facts(),
        }
        left = list(range(len(sites)))
        for _ in range(_ATTEMPTS):
            left = self._attempt(order, sites, left, sent, found)
            if not left:
                break
        for place in left:
            found[place] = ClientError(
                f"site {sites[place].site}: its worker process died {_ATTEMPTS} times, perhaps "
                "for want of memory; lower engine.workers or phases.NAME.batch_size"
            )
        return [found[place] for place in range(len(sites))]

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.pipe.close()
            worker.process.join(timeout=5)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.back.close()
        self._workers = []
        self._broadcast.close()

    def _attempt(
        self,
        order: Order,
        sites: Sequence[SiteContext],
        places: Sequence[int],
        sent: Mapping[str, Any],
        found: dict[int, Work | Exception],
    ) -> list[int]:
        """Run some clients; return the places of those whose worker died."""
        while len(self._workers) < self._count:
            self._workers.append(self._fork())
        lost: list[int] = []
        parts = split([self._task.sites[sites[p].site].size for p in places], self._count)
        busy = []
        for worker, part in zip(list(self._workers), parts, strict=True):
            mine = [places[i] for i in part]
            if not mine:
                continue
            try:
                _send(worker, sent, [sites[p] for p in mine])
                busy.append((worker, mine))
            except OSError:
                self._bury(worker)
                lost += mine
        for worker, mine in busy:
            try:
                self._receive(worker, order, [sites[p] for p in mine], mine, found)
            except (EOFError, OSError):
                self._bury(worker)
                lost += mine
        return sorted(lost)

    def _receive(
        self,
        worker: _Worker,
        order: Order,
        sites: Sequence[SiteContext],
        places: Sequence[int],
        found: dict[int, Work | Exception],
    ) -> None:
        answer = json.loads(worker.pipe.recv_bytes())
        # Copied: the worker writes the next cohort's results into the same memory.
        copies = [values.copy() for values in worker.back.arrays(answer["stacks"])]
        stacks = by_name(answer["stacks"], copies)
        states = states_of(answer["states"], worker.back, len(sites))
        for row, (place, entry) in enumerate(zip(places, answer["works"], strict=True)):
            if "error" in entry:
                found[place] = ClientError(entry["error"])
                continue
            sites[row].state.clear()
            sites[row].state.update(states[row])
            arrays = {name: stacks[name][row] for name in order.returns}
            found[place] = Work(
                arrays,
                entry["rows"],
                entry["metrics"],
                entry["steps"],
                tuple(Applied(**item) for item in entry["applied"]),
            )

    def _fork(self) -> _Worker:
        ours, theirs = multiprocessing.Pipe()
        back = Region()
        context = multiprocessing.get_context("fork")
        process = context.Process(target=self._serve, args=(theirs, ours, back), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours, back)

    def _bury(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.pipe.close()
        worker.process.kill()
        worker.process.join()
        worker.back.close()

    def _serve(self, pipe: Connection, ours: Connection, back: Region) -> None:
        """Be a worker: run what comes through the pipe until it is closed."""
        # Ctrl-C is the driver's to handle, and a worker must not outlive it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        # One thread: a pool of threads does not survive a fork, and waiting for it never ends.
        torch.set_num_threads(1)
        # The driver's ends came along with the fork; held here, they would never read as closed.
        for end in (ours, *(worker.pipe for worker in self._workers)):
            end.close()
        while True:
            try:
                asked = json.loads(pipe.recv_bytes())
            except EOFError:
                os._exit(0)
            self._kernels.import_facts(asked["kernels"])
            order = read_order(asked["order"], asked["arrays"], self._broadcast)
            sites = read_sites(asked["sites"], asked["states"], back, self._task)
            works = self._run(order, sites)
            pipe.send_bytes(json.dumps(_answer(order, sites, works, back)).encode())


def _send(worker: _Worker, sent: Mapping[str, Any], sites: Sequence[SiteContext]) -> None:
    states = {f"{i}|{name}": v for i, site in enumerate(sites) for name, v in site.state.items()}
    places = [[site.site, site.seeds.root, list(site.seeds.path)] for site in sites]
    asked = {**sent, "sites": places, "states": worker.back.write(states)}
    worker.pipe.send_bytes(json.dumps(asked).encode())


def _answer(
    order: Order,
    sites: Sequence[SiteContext],
    works: Sequence[Work | Exception],
    back: Region,
) -> dict[str, Any]:
    """Write what clients bring into shared memory, and say where it lies."""
    kinds = next((w.arrays for w in works if not isinstance(w, Exception)), {})
    layout = [(n, kinds[n].dtype, (len(works), *kinds[n].shape)) for n in kinds]
    states = {
        f"{i}|{name}": np.asarray(values)
        for i, (site, work) in enumerate(zip(sites, works, strict=True))
        if not isinstance(work, Exception)
        for name, values in site.state.items()
    }
    placed = back.reserve([*layout, *((n, v.dtype, v.shape) for n, v in states.items())])
    stacks, kept = placed[: len(layout)], placed[len(layout) :]
    for stack, name in zip(back.arrays(stacks), kinds, strict=True):
        for row, work in enumerate(works):
            if not isinstance(work, Exception):
                stack[row] = work.arrays[name]
    for target, values in zip(back.arrays(kept), states.values(), strict=True):
        target[...] = values
    return {"stacks": stacks, "states": kept, "works": [_facts(work) for work in works]}


def _facts(work: Work | Exception) -> dict[str, Any]:
    if isinstance(work, Exception):
        return {"error": "".join(traceback.format_exception(work)).strip()}
    return {
        "rows": work.num_examples,
        "metrics": work.metrics,
        "steps": work.steps,
        "applied": [vars(item) for item in work.applied],
    }


def split(sizes: Sequence[int], count: int) -> list[list[int]]:
    """Split places among ``count`` workers, longest first, each to the least laden so far."""
    parts: list[list[int]] = [[] for _ in range(count)]
    load = [0] * count
    for place in sorted(range(len(sizes)), key=lambda p: (-sizes[p], p)):
        least = min(range(count), key=lambda w: (load[w], w))
        parts[least].append(place)
        load[least] += max(1, sizes[place])
    return [sorted(part) for part in parts]

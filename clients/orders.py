"""Orders and sites as plain data and shared memory: how they reach a worker process."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedalt.clients.kernels.base import Order, SiteContext
from fedalt.clients.shared import Layout, Region, by_name
from fedalt.seeds import Seeds
from fedalt.task import Task
from fedalt.wire.plan import RoundPlan, decode_plan, encode_plan

_SCALARS = ("device", "mode", "precision", "rounds", "workers")


def order_facts(order: Order) -> dict[str, Any]:
    """Return all of an order but its arrays, as JSON takes it."""
    plan = RoundPlan(order.run_id, order.round, 0, order.phase, order.returns, order.keeps)
    return {
        "plan": base64.b64encode(encode_plan(plan)).decode(),
        "extras": dict(order.extras),
        **{name: getattr(order, name) for name in _SCALARS},
    }


def read_order(facts: Mapping[str, Any], placed: Layout, region: Region) -> Order:
    """Return the order of such facts; its arrays are the region's memory, read-only."""
    plan = decode_plan(base64.b64decode(facts["plan"]))
    arrays = by_name(placed, region.arrays(placed))
    for values in arrays.values():
        values.setflags(write=False)
    scalars = {name: facts[name] for name in _SCALARS}
    return Order(
        plan.run_id,
        plan.round,
        plan.phase,
        arrays,
        plan.returns,
        facts["extras"],
        keeps=plan.keeps,
        **scalars,
    )


def read_sites(
    places: Sequence[Any], placed: Layout, region: Region, task: Task
) -> list[SiteContext]:
    """Return the sites at (index, root of the seeds, path), with their states from a region."""
    states = states_of(placed, region, len(places))
    return [
        SiteContext(task, site, state, Seeds(root).at(*path))
        for (site, root, path), state in zip(places, states, strict=True)
    ]


def states_of(placed: Layout, region: Region, count: int) -> list[dict[str, np.ndarray]]:
    """Copy states out of a region; entry ``i|name`` is an array of the i-th site."""
    states: list[dict[str, np.ndarray]] = [{} for _ in range(count)]
    for (key, *_), values in zip(placed, region.arrays(placed), strict=True):
        place, _, name = key.partition("|")
        states[int(place)][name] = values.copy()
    return states

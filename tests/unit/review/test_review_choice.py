"""Which modes may stand in for the reference: by what most clients show, not by one of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fedalt.alternation.phase import Phase
from fedalt.clients.kernels import choice
from fedalt.clients.kernels.base import Order, SiteContext, Work
from fedalt.clients.kernels.choice import settle
from fedalt.errors import ConfigError
from fedalt.modes import SEQUENTIAL, Mode
from fedalt.seeds import Seeds

BATCHED = Mode.read("batched:3")


class Task:
    """Nothing of it is asked."""


def settled(gaps: Sequence[float], precision: str = "float32") -> Mode:
    """Tell the mode ``batched`` where it ends ``gaps`` of an update of length 1 from the rest."""
    start: Mapping[str, np.ndarray] = {"w": np.zeros(2, np.float64)}
    order = Order("r", 1, Phase("fit"), start, ("w",), precision=precision)
    sites = [SiteContext(Task(), i, {}, Seeds(0)) for i in range(len(gaps))]  # type: ignore[arg-type]

    def run(mode: Mode, order: Order, some: Sequence[SiteContext]) -> list[Any]:
        ends = [0.0 if mode == SEQUENTIAL else gaps[site.site] for site in some]
        return [Work({"w": np.array([1.0, end])}, 1, {}) for end in ends]

    client: Any = None
    return settle(BATCHED, order, sites, client, run).mode


@pytest.mark.parametrize(
    ("gaps", "precision"),
    [
        ([1e-6, 1e-6, 1e-6], "float32"),
        ([1.4e-2, 5e-5, 5e-5], "float32"),
        ([5e-5, 1.4e-2], "float32"),
        ([9e-4], "float32"),
        ([1e-2, 1.5e-1, 4e-2], "bfloat16"),
    ],
)
def test_one_client_that_rounding_led_astray_refuses_no_mode(
    gaps: list[float], precision: str
) -> None:
    assert settled(gaps, precision) == BATCHED


@pytest.mark.parametrize(
    ("gaps", "precision"),
    [
        ([3.1e-2, 2.3e-2, 9.3e-5], "float32"),
        ([5e-3, 5e-3, 1e-6], "float32"),
        ([1e-6, 1e-6, 2.3e-2], "float32"),
        ([1.4e-2], "float32"),
        ([1e-6, 1e-6, float("nan")], "float32"),
        ([1e-2, 1e-2, 4e-1], "bfloat16"),
        ([1e-1, 1e-1, 1e-2], "bfloat16"),
    ],
)
def test_what_most_clients_show_or_one_too_clearly_is_refused(
    gaps: list[float], precision: str
) -> None:
    with pytest.raises(ConfigError, match="of an update away from the reference's"):
        settled(gaps, precision)


class Kept(Task):
    """A task whose only array stays at the sites."""

    def initial_arrays(self, seeds: Seeds) -> dict[str, np.ndarray]:
        return {"w": np.zeros(2)}


def settled_on_what_is_kept(gaps: Sequence[float]) -> Mode:
    """The same where the array is local: nothing is returned that could be compared."""
    order = Order("r", 1, Phase("fit"), {}, (), keeps=("w",))
    sites = [SiteContext(Kept(), i, {}, Seeds(0)) for i in range(len(gaps))]  # type: ignore[arg-type]

    def run(mode: Mode, order: Order, some: Sequence[SiteContext]) -> list[Any]:
        for site in some:
            end = 0.0 if mode == SEQUENTIAL else gaps[site.site]
            site.state["local/w"] = np.array([1.0, end])
        return [Work({}, 1, {}) for _ in some]

    client: Any = None
    chosen = settle(BATCHED, order, sites, client, run).mode
    assert not any(site.state for site in sites)
    return chosen


def test_what_sites_keep_is_compared_as_well() -> None:
    assert settled_on_what_is_kept([9e-4, 1e-6, 1e-6]) == BATCHED
    with pytest.raises(ConfigError, match=r"5\.0e-03, 5\.0e-03, 1\.0e-06 of an update away"):
        settled_on_what_is_kept([5e-3, 5e-3, 1e-6])


def test_a_search_ends_when_it_has_taken_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work of 0.12 s, and a first mode that takes longer than that to be compared."""
    monkeypatch.setattr(choice, "WORTH_PROBING", 0.05)
    start: Mapping[str, np.ndarray] = {"w": np.zeros((1, 1, 1, 1), np.float32)}
    order = Order("r", 1, Phase("fit"), start, ("w",), rounds=40)
    sites = [SiteContext(Task(), i, {}, Seeds(0)) for i in range(3)]  # type: ignore[arg-type]
    tried = []

    def run(mode: Mode, order: Order, some: Sequence[SiteContext]) -> list[Any]:
        tried.append(mode)
        end = time.process_time() + len(some) * (0.001 if mode == SEQUENTIAL else 0.1)
        while time.process_time() < end:
            pass
        return [Work({"w": np.ones((1, 1, 1, 1), np.float32)}, 1, {}) for _ in some]

    client: Any = SimpleNamespace(data=(torch.zeros(1, 1),), rows=np.arange(1))
    found = choice.probe(order, sites, client, run)
    assert found.mode == SEQUENTIAL
    assert set(tried) == {SEQUENTIAL, Mode(channels_last=True)}
    assert all("the search took" in reason for reason in found.left_out.values())
    assert len(found.left_out) == 3

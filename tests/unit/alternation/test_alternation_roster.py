"""A roster changes no draw, and walks through no more sites than it must."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from fedalt.alternation import (
    History,
    LazySites,
    Phase,
    Planner,
    Roster,
    Selector,
    Site,
    preview_schedule,
    repeat,
)
from fedalt.errors import ScheduleError
from fedalt.seeds import Seeds

SITES = [Site(i, f"s{i}", 10 + i, {"modality": "ct" if i % 3 else "mr"}) for i in range(200)]


class Counted(Sequence[Site]):
    """Lazy sites that count how often one is asked for."""

    def __init__(self, number: int) -> None:
        self.number, self.asked = number, 0

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self.number:
            raise IndexError(index)
        self.asked += 1
        return Site(index, f"s{index}", 5, {"modality": "ct" if index % 2 else "mr"})


def plain_draw(selector: Selector, sites: Sequence[Site], rng: np.random.Generator) -> list[Site]:
    """The draw as it is defined: walk, filter, draw from the pool."""
    pool = [s for s in sorted(sites, key=lambda s: s.index) if selector.fits(s)]
    if selector.mode == "all":
        return pool
    if selector.mode == "poisson":
        return [s for s, u in zip(pool, rng.random(len(pool)), strict=True) if u < selector.rate]
    share = max(1, math.ceil(selector.rate * len(pool) - 1e-9))
    size = selector.count if selector.mode == "fixed" else share
    return [pool[i] for i in sorted(rng.choice(len(pool), size=size, replace=False).tolist())]


@pytest.mark.parametrize("where", [{}, {"modality": ("ct",)}])
@pytest.mark.parametrize("unless", [(), ({"modality": ("mr",)},)])
@pytest.mark.parametrize(
    "mode", [{}, {"mode": "fixed", "count": 7}, {"mode": "fraction", "rate": 0.3},
             {"mode": "poisson", "rate": 0.4}],
)  # fmt: skip
def test_draws_are_those_of_a_walk(mode: Any, where: Any, unless: Any) -> None:
    selector = Selector(**mode, where=where, unless=unless)
    shuffled = [SITES[i] for i in np.random.default_rng(0).permutation(len(SITES))]
    roster = Roster(shuffled)
    for number in range(5):
        wanted = plain_draw(selector, shuffled, Seeds(number).numpy())
        for sites in (roster, shuffled, LazySites([1] * 200, "s{}")):
            if isinstance(sites, LazySites) and (where or unless):
                continue
            drawn = selector.draw(sites, Seeds(number).numpy())
            assert [s.name for s in drawn] == [s.name for s in wanted]


def test_a_round_asks_for_its_cohort_alone() -> None:
    sites = Counted(100_000)
    planner = Planner(repeat(Phase("train", clients=Selector("fixed", count=10))), 0, sites)
    for number in range(1, 6):
        plan = planner.plan(number, History())
        assert plan is not None and len(plan.parts[0].cohort) == 10
    assert sites.asked <= 50


def test_sites_are_walked_once_for_a_test_and_not_once_a_round() -> None:
    sites = Counted(1000)
    clients = Selector("fixed", count=10, where={"modality": ("ct",)})
    planner = Planner(repeat(Phase("train", clients=clients)), 0, sites)
    for number in range(1, 6):
        planner.plan(number, History())
    assert 1000 <= sites.asked <= 1050


def test_a_preview_makes_a_site_once() -> None:
    sites = Counted(50)
    preview = preview_schedule(repeat(Phase("train")), 0, sites, rounds=20)
    assert sites.asked == 50
    assert preview.site_rounds("train") == 20 * 50 and preview.touches(7) == 20
    assert len(preview.sites) == 50


def test_lazy_sites_are_what_a_list_would_be() -> None:
    modality = ["ct", "mr", "ct"]
    sites = LazySites([4, 5, 6], "ward-{}", {"modality": modality})
    wanted = [Site(i, f"ward-{i}", 4 + i, {"modality": modality[i]}) for i in range(3)]
    assert list(sites) == wanted and sites[-1] == wanted[-1] and sites[1:] == wanted[1:]
    assert Selector(where={"modality": ("ct",)}).eligible(sites) == [wanted[0], wanted[2]]
    with pytest.raises(IndexError, match="no site 3 among 3"):
        sites[3]
    with pytest.raises(ScheduleError, match="'modality' has 2 values for 3 sites"):
        LazySites([1, 1, 1], attributes={"modality": ["ct", "mr"]})

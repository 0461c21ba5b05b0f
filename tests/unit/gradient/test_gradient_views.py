"""Slices of a site's rows: which are seen, and whose turn it is; rows that are drawn anew."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from gradient_toys import ToyTask, assert_close, context_of, order_of, phase_of, start_of

from fedalt.alternation import Phase, StreamView
from fedalt.alternation.environment import Environment
from fedalt.alternation.phase import View
from fedalt.clients.kernels.evaluate import EvaluateKernel
from fedalt.clients.kernels.gradient import GradientKernel
from fedalt.clients.kernels.stages import Stage, minibatches
from fedalt.errors import ConfigError, DataError, ScheduleError
from fedalt.seeds import Seeds
from fedalt.wire.plan import RoundPlan, decode_plan, encode_plan


@dataclass(frozen=True, eq=False)
class TwoModalities(ToyTask):
    """Sites whose first nine rows are CT and whose others are MR; all rows used are noted."""

    used: list[torch.Tensor] = field(default_factory=list)

    def site_slices(self, site: int) -> dict[str, np.ndarray]:
        rows = np.arange(self.sizes[site])
        return {"ct": rows[:9], "mr": rows[9:]}

    def site_eval_slices(self, site: int) -> dict[str, np.ndarray]:
        return self.site_slices(site)

    def loss(self, model: Any, batch: tuple[torch.Tensor, ...]) -> Any:
        self.used.append(batch[0].detach())
        return super().loss(model, batch)

    def batches(self, site: int = 0) -> list[list[int]]:
        """Return the row numbers of the batches that were used."""
        rows = self.site_data(site)[0]
        return [[int((rows == row).all(1).nonzero()[0, 0]) for row in batch] for batch in self.used]


def run(task: ToyTask, site: int = 0, **settings: Any) -> list[list[int]]:
    GradientKernel()(order_of(task, phase_of(**settings)), context_of(task, site))
    return task.batches()  # type: ignore[attr-defined, no-any-return]


def test_one_slice_is_all_that_a_client_sees() -> None:
    batches = run(TwoModalities(), view=View(slices=("mr",)))
    assert sorted(chain.from_iterable(batches)) == sorted([*range(9, 23)] * 2)


def test_slices_take_turns_batch_by_batch() -> None:
    batches = run(TwoModalities(), view=View(slices=("mr", "ct")))
    # Nine rows in batches of five are two; so each slice has two turns an epoch, of two epochs.
    assert [rows[0] >= 9 for rows in batches] == [True, False] * 4
    assert all(all(r >= 9 for r in rows) == (rows[0] >= 9) for rows in batches)
    for epoch in (batches[:4], batches[4:]):
        assert sorted(epoch[1] + epoch[3]) == list(range(9))
        assert len(set(epoch[0] + epoch[2])) == 10
    assert batches[1] != batches[5]


def test_steps_end_turns_anywhere() -> None:
    batches = run(TwoModalities(), view=View(slices=("ct", "mr")), steps=7)
    assert [rows[0] >= 9 for rows in batches] == [False, True, False, True, False, True, False]


def test_inner_phases_see_slices_of_their_own() -> None:
    task = TwoModalities()
    inner = (
        phase_of("a", view=View(slices=("ct",)), epochs=1),
        phase_of("b", view=View(slices=("mr",)), epochs=1),
    )
    batches = run(task, inner=inner)
    assert sorted(chain.from_iterable(batches[:2])) == list(range(9))
    assert sorted(chain.from_iterable(batches[2:])) == list(range(9, 23))


def test_a_slice_that_a_site_lacks_is_named() -> None:
    task = TwoModalities(sizes=(9,))
    with pytest.raises(DataError, match=r"site 'ward-0'.*no rows of the slice 'mr'.*: ct, mr"):
        run(task, view=View(slices=("mr",)))
    with pytest.raises(DataError, match=r"site 'ward-0'.*no rows of the slice 'ct'.*: none"):
        GradientKernel()(
            order_of(ToyTask(), phase_of(view=View(slices=("ct",)))), context_of(ToyTask())
        )


def test_a_fraction_is_one_of_each_slice() -> None:
    views = View(slices=("ct",), fraction=0.3), View(slices=("ct", "mr"), fraction=0.01)
    one, both = (run(TwoModalities(), view=view, steps=6) for view in views)
    seen_of_one = set(chain.from_iterable(one))
    assert len(seen_of_one) == 3 and max(seen_of_one) < 9
    assert [rows[0] >= 9 for rows in both] == [False, True] * 3
    assert len(set(chain.from_iterable(both))) == 2


@pytest.mark.parametrize("mode", ["batched", "compiled"])
def test_modes_take_the_same_turns(mode: str) -> None:
    task = ToyTwo()
    phase = phase_of(view=View(slices=("ct", "mr")), steps=9)
    sites = [context_of(task, site) for site in (0, 1)]
    order = order_of(task, phase)
    wanted = [GradientKernel()(order, site) for site in sites]
    found = list(GradientKernel().cohort(replace(order, mode=mode), sites))
    for work, reference in zip(found, wanted, strict=True):
        assert not isinstance(work, Exception)
        assert_close(work.arrays, reference.arrays, atol=2e-6)
        assert work.steps == reference.steps == 9


class ToyTwo(TwoModalities):
    """The same, whose loss can be traced."""

    def loss(self, model: Any, batch: tuple[torch.Tensor, ...]) -> Any:
        return torch.nn.functional.cross_entropy(model(batch[0]), batch[1]), {}


def test_the_evaluation_sees_slices_too() -> None:
    task = TwoModalities()
    work = EvaluateKernel()(
        order_of(task, Phase("e", kernel="evaluate", view=View(slices=("ct",))), returns=()),
        context_of(task),
    )
    assert work.num_examples == 9


def test_slices_are_checked_and_travel() -> None:
    with pytest.raises(ScheduleError, match="each once"):
        View(slices=("ct", "ct"))
    stream = StreamView((0, 1), 0, environments=(Environment("none"),))
    with pytest.raises(ScheduleError, match="comes in tasks"):
        View(slices=("ct",), stream=stream)
    with pytest.raises(ScheduleError, match=r"unknown key 'slice'.*'slices'"):
        Phase.from_dict({"name": "p", "view": {"slice": "ct"}})
    phase = Phase.from_dict({"name": "p", "view": {"slices": ["ct", "mr"]}})
    assert Phase.from_dict(phase.to_dict()) == phase
    assert decode_plan(encode_plan(RoundPlan("r", 1, 0, phase, ()))).phase == phase


def test_an_epoch_of_turns_ends_with_the_slice_of_fewest_batches() -> None:
    turns = (np.arange(3), np.arange(3, 20))
    plain = phase_of(epochs=1, batch_size=2)
    stage = Stage(plain, None, (), np.arange(20), Seeds(0), "", turns)  # type: ignore[arg-type]
    assert [len(rows) for rows in minibatches(stage)] == [2, 2, 1, 2]


@dataclass(frozen=True, eq=False)
class Drawn(ToyTask):
    """Rows that are drawn anew for each order."""

    def site_draw(self, site: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = self.site_data(site)
        rows = torch.from_numpy(rng.integers(0, len(x), 8))
        return x[rows], y[rows]


def test_rows_are_drawn_from_the_orders_seeds() -> None:
    task = Drawn()
    order = order_of(task, phase_of())
    first, again = (GradientKernel()(order, context_of(task)) for _ in range(2))
    other = GradientKernel()(order, context_of(task, seed=2))
    assert first.num_examples == 8
    assert_close(first.arrays, again.arrays, atol=0.0)
    assert any((first.arrays[n] != other.arrays[n]).any() for n in start_of(task))


class Judging(ToyTask):
    """A task whose judgement of a site is no mean over rows."""

    def site_judge(self, model: torch.nn.Module, site: int) -> tuple[int, dict[str, float]]:
        assert not model.training and not torch.is_grad_enabled()
        return site, {"norm": float(sum(p.square().sum() for p in model.parameters()))}


def test_a_task_may_judge_by_itself() -> None:
    task = Judging()
    order = order_of(task, Phase("e", kernel="evaluate"), returns=())
    work = EvaluateKernel()(order, context_of(task, 1))
    wanted = sum(float(np.square(a).sum()) for a in start_of(task).values())
    assert (work.num_examples, work.metrics) == (1, {"norm": pytest.approx(wanted)})
    with pytest.raises(DataError, match=r"ward-0.*no cases"):
        EvaluateKernel()(order, context_of(task, 0))
    part = Phase("e", kernel="evaluate", view=View(slices=("ct",)))
    with pytest.raises(ConfigError, match=r"phase 'e': this task judges whole cases by itself"):
        EvaluateKernel()(order_of(task, part, returns=()), context_of(task, 1))

"""Promise: evaluation judges the received model on the site's rows and changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gradient_toys import ToyTask, bn_net, context_of, order_of, start_of

from fedalt.alternation.phase import Phase, View
from fedalt.clients.kernels.evaluate import EvaluateKernel
from fedalt.errors import ConfigError, DataError

PHASE = Phase("judge", kernel="evaluate")


def by_hand(task: ToyTask, data: tuple[torch.Tensor, ...]) -> tuple[float, dict[str, float]]:
    model = task.build().eval()
    model.load_state_dict({n: torch.from_numpy(np.array(a)) for n, a in start_of(task).items()})
    with torch.no_grad():
        loss, metrics = task.loss(model, data)
    return loss.item(), metrics


@pytest.mark.parametrize("rows", [24, 1, 1300])
def test_loss_and_metrics_are_means_over_all_rows(rows):
    task, state = ToyTask(bn_net, (rows,), ()), {}
    kernel = EvaluateKernel()
    work = kernel(order_of(task, PHASE, returns=()), context_of(task, state=state))
    loss, metrics = by_hand(task, task.site_data(0))
    assert work.metrics == pytest.approx({"loss": loss, **metrics}, abs=1e-6)
    assert (work.arrays, work.num_examples, work.steps, state) == ({}, rows, 0, {})
    for name, array in start_of(task).items():
        assert kernel._models(task, "cpu").read(name).tobytes() == array.tobytes()


def test_data_kept_for_evaluation_is_preferred():
    class Held(ToyTask):
        def site_eval_data(self, site: int) -> tuple[torch.Tensor, torch.Tensor]:
            return self.site_data(site + 1)

    task = Held()
    work = EvaluateKernel()(order_of(task, PHASE, returns=()), context_of(task))
    assert work.num_examples == 17
    assert work.metrics["loss"] == pytest.approx(by_hand(task, task.site_data(1))[0], abs=1e-6)


def test_a_view_holds_here_too():
    task, phase = ToyTask(sizes=(100,)), Phase("judge", view=View(0.2))
    work = EvaluateKernel()(order_of(task, phase, returns=()), context_of(task))
    assert work.num_examples == 20


def test_what_cannot_be_judged_is_named():
    task, kernel = ToyTask(), EvaluateKernel()
    with pytest.raises(DataError, match=r"site 'ward-2'.*no rows"):
        kernel(order_of(task, PHASE, returns=()), context_of(task, 2))
    with pytest.raises(ConfigError, match=r"takes no params, got params\.lr"):
        kernel(order_of(task, PHASE.with_params(lr=0.1), returns=()), context_of(task))

    class Ragged(ToyTask):
        def site_data(self, site: int) -> tuple[torch.Tensor, torch.Tensor]:
            x, y = super().site_data(site)
            return x, y[1:]

    with pytest.raises(DataError, match=r"tensors have \[22, 23\] rows"):
        kernel(order_of(Ragged(), PHASE, returns=()), context_of(Ragged()))


def test_a_task_without_model_is_refused():
    class Sums:
        sites = ToyTask().sites

    with pytest.raises(ConfigError, match="Sums has no model and loss"):
        EvaluateKernel()(order_of(ToyTask(), PHASE, returns=()), context_of(Sums()))

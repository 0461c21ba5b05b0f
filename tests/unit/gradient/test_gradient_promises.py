"""Promise: same seeds, same bits; a failed run leaves no trace; errors say where and what."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from gradient_toys import (
    BN_BLOCKS,
    ToyTask,
    bn_net,
    context_of,
    dropout_mlp,
    linear,
    order_of,
    phase_of,
    same,
    start_of,
)

from fedalt.alternation.phase import View
from fedalt.clients.kernels.gradient import GradientKernel
from fedalt.errors import ConfigError, DataError, FedaltError, ScheduleError
from fedalt.seeds import Seeds


@pytest.mark.parametrize("build", [bn_net, dropout_mlp])
def test_same_seeds_give_the_same_bits_and_other_seeds_do_not(build):
    task = ToyTask(build, (24, 24), blocks=())
    kernel, order = GradientKernel(), order_of(task, phase_of())
    first = kernel(order, context_of(task)).arrays
    kernel(order, context_of(task, 1))
    torch.rand(3)
    assert same(first, kernel(order, context_of(task)).arrays)
    assert same(first, GradientKernel()(order, context_of(task)).arrays)
    elsewhere = replace(context_of(task), seeds=context_of(task, 1).seeds)
    assert not same(first, kernel(order, elsewhere).arrays)


def test_the_ambient_generator_is_given_back():
    task = ToyTask(dropout_mlp, blocks=())
    before = torch.get_rng_state()
    kernel, order = GradientKernel(), order_of(task, phase_of(epochs=0, steps=1))
    kernel._made.models(task, "cpu")
    torch.set_rng_state(before)
    kernel(order, context_of(task))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_model_is_built_once_a_task():
    task, other = ToyTask(), ToyTask()
    kernel, order = GradientKernel(), order_of(task, phase_of())
    for site in (0, 1, 0):
        kernel(order, context_of(task, site))
    assert task.calls == ["model"]
    kernel(order, context_of(other))
    assert other.calls == ["model"]


def test_the_reply_shares_no_memory_with_order_or_model():
    task, kernel = ToyTask(), GradientKernel()
    order = order_of(task, phase_of())
    start = {name: array.copy() for name, array in order.arrays.items()}
    work = kernel(order, context_of(task))
    kept = {name: array.copy() for name, array in work.arrays.items()}
    kernel(order, context_of(task, 1))
    assert same(work.arrays, kept) and same(dict(order.arrays), start)
    assert all(array.flags.writeable and array.flags.owndata for array in work.arrays.values())


def test_the_reply_has_the_kind_that_was_received():
    task = ToyTask()
    arrays = {name: array.astype(np.float64) for name, array in start_of(task).items()}
    work = GradientKernel()(order_of(task, phase_of(), arrays), context_of(task))
    assert {array.dtype for array in work.arrays.values()} == {np.dtype(np.float64)}


def test_blocks_not_sent_come_from_the_site_or_else_from_the_start():
    task, kernel = ToyTask(), GradientKernel()
    everything = start_of(task)
    body = {name: array for name, array in everything.items() if name.startswith("0")}
    returns, phase = tuple(body), phase_of(train=("body",))
    kernel(order_of(task, phase_of()), context_of(task, 1))

    state = {f"local/{n}": a for n, a in everything.items() if n not in body}
    local = kernel(order_of(task, phase, body, returns), context_of(task, state=state))
    sent = kernel(order_of(task, phase, everything, returns), context_of(task))
    assert same(local.arrays, sent.arrays)

    initial = {**task.initial_arrays(Seeds(1).at("initial")), **body}
    absent = kernel(order_of(task, phase, body, returns), context_of(task))
    spelled = kernel(order_of(task, phase, initial, returns), context_of(task))
    assert same(absent.arrays, spelled.arrays)


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"epochs": 1}, 5),
        ({"epochs": 3}, 15),
        ({"epochs": 3, "steps": 2}, 2),
        ({"epochs": 0, "steps": 12}, 12),
        ({"epochs": 2, "batch_size": 100}, 2),
    ],
)
def test_steps_win_over_epochs(settings, steps):
    task = ToyTask()
    work = GradientKernel()(order_of(task, phase_of(**settings)), context_of(task))
    assert (work.steps, work.num_examples) == (steps, 23)


@pytest.mark.parametrize(("fraction", "rows"), [(1.0, 100), (0.07, 7), (0.5, 50), (0.001, 1)])
def test_a_view_is_a_seeded_part_of_the_rows(fraction, rows):
    task = ToyTask(sizes=(100,))
    order = order_of(task, phase_of(view=View(fraction), epochs=1, batch_size=10))
    work = GradientKernel()(order, context_of(task))
    assert (work.num_examples, work.steps) == (rows, -(-rows // 10))
    assert same(work.arrays, GradientKernel()(order, context_of(task)).arrays)


def test_inner_views_are_parts_of_the_outer_view():
    inner = phase_of("inner", view=View(0.5), epochs=1, batch_size=100)
    seen: list[int] = []

    class Counting(ToyTask):
        def loss(self, model, batch):
            seen.append(len(batch[0]))
            return super().loss(model, batch)

    task = Counting(sizes=(100,))
    work = GradientKernel()(
        order_of(task, phase_of(view=View(0.4), inner=(inner,))), context_of(task)
    )
    assert (work.num_examples, seen) == (40, [20])


def test_train_loss_is_that_of_the_received_model():
    task, kernel = ToyTask(bn_net, (24,), ()), GradientKernel()
    order = order_of(task, phase_of(params={"report_initial_loss": True}))
    work = kernel(order, context_of(task))
    model = bn_net().eval()
    model.load_state_dict({n: torch.from_numpy(np.array(a)) for n, a in start_of(task).items()})
    with torch.no_grad():
        wanted = task.loss(model, task.site_data(0))[0].item()
    assert work.metrics["train_loss"] == pytest.approx(wanted, abs=1e-6)
    assert same(work.arrays, kernel(order_of(task, phase_of()), context_of(task)).arrays)


def test_a_failed_run_leaves_the_state_as_it_was():
    task, kernel = ToyTask(linear, scale=100.0, blocks=()), GradientKernel()
    first = phase_of("one", params={"momentum": 0.9, "optimizer_state": "persist"})
    state: dict[str, np.ndarray] = {}
    kernel(order_of(task, phase_of(inner=(first,))), context_of(task, state=state))
    former = {name: (array, array.copy()) for name, array in state.items()}
    assert former
    wild = phase_of("two", params={"lr": 1e37})
    with pytest.raises(FedaltError, match=r"step 1[1-9]: the loss is"):
        kernel(order_of(task, phase_of(inner=(first, wild))), context_of(task, state=state))
    assert set(state) == set(former)
    for name, (array, copy) in former.items():
        assert state[name] is array and np.array_equal(array, copy)


def test_an_empty_client_is_named():
    task = ToyTask()
    with pytest.raises(DataError, match=r"site 'ward-2', round 3, phase 'fit': it has no rows"):
        GradientKernel()(order_of(task, phase_of()), context_of(task, 2))


def test_a_loss_that_is_not_finite_is_named_by_its_step():
    task = ToyTask(scale=float("nan"))
    with pytest.raises(FedaltError, match=r"site 'ward-0', round 3, .* step 1: the loss is nan"):
        GradientKernel()(order_of(task, phase_of()), context_of(task))


def test_a_last_step_that_breaks_the_model_is_noticed():
    task = ToyTask(linear, scale=1e30, blocks=())
    phase = phase_of(epochs=0, steps=1, params={"lr": 1e30})
    with pytest.raises(FedaltError, match="step 1: a parameter is not finite"):
        GradientKernel()(order_of(task, phase), context_of(task))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"momentun": 0.9}, r"phase 'fit': unknown params.momentun \(did you mean 'momentum'"),
        ({"clip_norm": -1}, "params.clip_norm is -1.0"),
        ({"proximal_mu": -1}, "params.proximal_mu is -1.0"),
        ({"optimizer_state": "forget"}, "reset, persist"),
        ({"optimizer": "adam", "momentum": 0.9}, "phase 'fit': params.momentum means nothing"),
    ],
)
def test_unfit_params_are_refused(params, message):
    task = ToyTask()
    with pytest.raises(ConfigError, match=message):
        GradientKernel()(order_of(task, phase_of(params=params)), context_of(task))


def test_work_that_makes_no_sense_is_refused():
    task, kernel = ToyTask(), GradientKernel()
    site = context_of(task)
    with pytest.raises(ConfigError, match="nothing to train"):
        kernel(order_of(task, phase_of(epochs=0)), site)
    inner = phase_of("inner", train=("body",))
    with pytest.raises(ScheduleError, match=r"inner phase 'inner' trains .* add its block"):
        kernel(order_of(task, phase_of(train=("head",), inner=(inner,))), site)
    with pytest.raises(ScheduleError, match="no block 'heed'"):
        kernel(order_of(task, phase_of(inner=(replace(inner, train=("heed",)),))), site)
    with pytest.raises(ConfigError, match=r"asked to train '2\.wait'.*did you mean '2\.weight'"):
        kernel(order_of(task, phase_of(), returns=("2.wait",)), site)


def test_arrays_that_do_not_fit_are_refused():
    task, kernel = ToyTask(), GradientKernel()
    start, site = start_of(task), context_of(task)
    wide = {**start, "0.bias": np.zeros(9, np.float32)}
    with pytest.raises(ConfigError, match=r"'0\.bias' has shape \(9,\), the model expects \(5,\)"):
        kernel(order_of(task, phase_of(), wide), site)
    odd = {**start, "0.bias": np.zeros(5, np.complex64)}
    with pytest.raises(ConfigError, match=r"array '0\.bias': Cannot cast"):
        kernel(order_of(task, phase_of(), odd), site)
    more = {**start, "9.bias": start["0.bias"]}
    with pytest.raises(ConfigError, match=r"the model has no array '9\.bias'"):
        kernel(order_of(task, phase_of(), more, tuple(start)), site)


def test_a_loss_without_trained_arrays_is_refused():
    class Deaf(ToyTask):
        def loss(self, model, batch):
            loss, metrics = super().loss(model, batch)
            return loss.detach(), metrics

    task = Deaf(bn_net, (24,), BN_BLOCKS)
    with pytest.raises(ConfigError, match=r"site 'ward-0'.* depends on none of the trained"):
        GradientKernel()(order_of(task, phase_of()), context_of(task))

"""Promise: the kernel trains as a plain torch loop with the same batches would."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from gradient_toys import (
    BN_BLOCKS,
    ToyTask,
    assert_close,
    bn_net,
    context_of,
    mlp,
    order_of,
    phase_of,
    plain_loop,
    start_of,
)
from torch import nn

from fedalt.alternation.block import Block
from fedalt.clients.kernels.gradient import GradientKernel

SGD = partial(torch.optim.SGD, lr=0.1)
CASES = {
    "sgd": ({}, SGD, {}),
    "momentum": ({"momentum": 0.9}, partial(SGD, momentum=0.9), {}),
    "adam": ({"optimizer": "adam", "lr": 0.01}, partial(torch.optim.Adam, lr=0.01), {}),
    "proximal": ({"proximal_mu": 0.7}, SGD, {"mu": 0.7}),
    "clipping": ({"clip_norm": 0.05}, SGD, {"clip": 0.05}),
    "both": ({"proximal_mu": 2.0, "clip_norm": 0.3}, SGD, {"mu": 2.0, "clip": 0.3}),
}


@pytest.mark.parametrize("build", [mlp, bn_net])
@pytest.mark.parametrize("case", CASES)
def test_equals_a_plain_torch_loop(case, build):
    params, make, settings = CASES[case]
    task = ToyTask(build, (24, 17), blocks=())
    site = context_of(task)
    work = GradientKernel()(order_of(task, phase_of(params=params)), site)
    wanted, loss = plain_loop(task, start_of(task), make, site.seeds, **settings)
    assert_close(work.arrays, wanted)
    assert work.metrics["loss"] == pytest.approx(loss, abs=1e-6)
    assert set(work.metrics) == {"loss", "accuracy"}
    assert (work.num_examples, work.steps) == (24, 10)


def test_the_strategy_may_send_mu_and_the_phase_overrules_it():
    task = ToyTask()
    kernel, site = GradientKernel(), context_of(task)
    wanted, _ = plain_loop(task, start_of(task), SGD, site.seeds, mu=0.7)
    sent = kernel(order_of(task, phase_of(), **{"proximal-mu": 0.7}), site)
    assert_close(sent.arrays, wanted)
    own = phase_of(params={"proximal_mu": 0.7})
    assert_close(kernel(order_of(task, own, **{"proximal-mu": 9.0}), site).arrays, wanted)


def test_one_round_of_federated_averaging_by_hand():
    task = ToyTask(sizes=(23, 17))
    kernel, order = GradientKernel(), order_of(task, phase_of())
    works = [kernel(order, context_of(task, i)) for i in range(2)]
    plain = [
        plain_loop(task, start_of(task), SGD, context_of(task, i).seeds, site=i)[0]
        for i in range(2)
    ]
    total = sum(work.num_examples for work in works)
    assert total == 40
    mean = {n: sum(w.arrays[n] * (w.num_examples / total) for w in works) for n in order.returns}
    assert_close(mean, {n: (plain[0][n] * 23 + plain[1][n] * 17) / 40 for n in order.returns})


def test_only_the_trained_block_is_returned_and_changed():
    task, kernel = ToyTask(), GradientKernel()
    phase = phase_of(train=("head",), params={"weight_decay": 0.1})
    work = kernel(order_of(task, phase), context_of(task))
    assert set(work.arrays) == {"2.weight", "2.bias"}
    frozen = {n: a for n, a in start_of(task).items() if n not in work.arrays}
    for name, array in frozen.items():
        assert kernel._made.models(task, "cpu").read(name).tobytes() == array.tobytes()

    def head_only(params):
        return torch.optim.SGD(list(params)[2:], lr=0.1, weight_decay=0.1)

    wanted, _ = plain_loop(task, start_of(task), head_only, context_of(task).seeds)
    assert_close(work.arrays, {n: wanted[n] for n in work.arrays})


def test_persistent_momentum_goes_on_where_the_last_round_stopped():
    task, kernel, state = ToyTask(), GradientKernel(), {}
    phase = phase_of(params={"momentum": 0.9, "optimizer_state": "persist"})
    arrays, model = start_of(task), mlp()
    plain, reference = arrays, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for seed in range(3):
        site = context_of(task, state=state, seed=seed)
        arrays = kernel(order_of(task, phase, arrays), site).arrays
        plain, _ = plain_loop(task, plain, None, site.seeds, optimizer=reference, model=model)
    assert_close(arrays, plain)
    assert set(state) == {f"optim/fit/momentum_buffer/{name}" for name in arrays}


def test_reset_is_the_default_and_leaves_no_state():
    task, kernel, state = ToyTask(), GradientKernel(), {}
    order = order_of(task, phase_of(params={"momentum": 0.9}))
    first = kernel(order, context_of(task, state=state)).arrays
    assert_close(kernel(order, context_of(task, state=state)).arrays, first, atol=0)
    assert state == {}


def test_inner_phases_equal_two_calls_by_hand():
    task, kernel = ToyTask(), GradientKernel()
    body = phase_of("body", train=("body",), epochs=1)
    head = phase_of("head", train=("head",), steps=7, batch_size=4, params={"lr": 0.3})
    site = context_of(task)
    both = kernel(order_of(task, phase_of(inner=(body, head))), site)

    arrays = dict(start_of(task))
    for position, inner in enumerate((body, head)):
        place = type(site)(task, 0, {}, site.seeds.at("inner", position, inner.name))
        arrays |= kernel(order_of(task, inner, arrays), place).arrays
    assert_close(both.arrays, arrays, atol=0)
    assert (both.num_examples, both.steps) == (23, 5 + 7)


def test_inner_phases_take_the_outer_params_where_they_set_none():
    task, kernel = ToyTask(), GradientKernel()
    bare = phase_of("a", params={"momentum": 0.5})
    own = type(bare)("a", epochs=2, batch_size=5)
    spelled = kernel(order_of(task, phase_of(inner=(bare,))), context_of(task))
    given = phase_of(inner=(own,), params={"momentum": 0.5})
    assert_close(kernel(order_of(task, given), context_of(task)).arrays, spelled.arrays, atol=0)


def test_batch_norm_buffers_are_trained_with_their_block_only():
    task, kernel = ToyTask(bn_net, (24,), BN_BLOCKS), GradientKernel()
    start = start_of(task)
    work = kernel(order_of(task, phase_of()), context_of(task))
    count = work.arrays["2.num_batches_tracked"]
    assert count.dtype == np.int64 and count.shape == () and int(count) == work.steps == 10
    assert not np.array_equal(work.arrays["2.running_mean"], start["2.running_mean"])

    kernel(order_of(task, phase_of(train=("head",))), context_of(task))
    for name in ("2.running_mean", "2.running_var", "2.num_batches_tracked", "2.weight"):
        assert kernel._made.models(task, "cpu").read(name).tobytes() == start[name].tobytes()


def test_a_block_of_buffers_alone_learns_by_the_forward_pass():
    task = ToyTask(bn_net, (24,), (Block("statistics", ("2/running_*", "2/num_*")),))
    work = GradientKernel()(order_of(task, phase_of(train=("statistics",))), context_of(task))
    assert int(work.arrays["2.num_batches_tracked"]) == 10


def test_parameters_outside_of_the_loss_neither_move_nor_decay():
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = mlp(), nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)

    task = ToyTask(Spare, (23,), blocks=())
    phase = phase_of(params={"weight_decay": 0.1, "momentum": 0.9, "clip_norm": 1.0})
    work = GradientKernel()(order_of(task, phase), context_of(task))
    start = start_of(task)
    assert np.array_equal(work.arrays["spare.weight"], start["spare.weight"])
    assert not np.array_equal(work.arrays["used.0.weight"], start["used.0.weight"])


def test_tied_parameters_stay_tied():
    def tied() -> nn.Module:
        first, last = nn.Linear(6, 6), nn.Linear(6, 6)
        last.weight = first.weight
        return nn.Sequential(first, nn.Tanh(), last)

    task = ToyTask(tied, (23,), blocks=())
    start = dict(start_of(task))
    start["2.weight"] = start["0.weight"]
    site = context_of(task)
    work = GradientKernel()(order_of(task, phase_of(), start), site)
    assert_close(work.arrays, plain_loop(task, start, SGD, site.seeds)[0])

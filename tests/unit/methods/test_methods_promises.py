"""What holds for every method: settings, modes, resuming, and a state that errors leave alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from method_toys import Softmax, Walker, normed, phase_of, same

from fedalt.alternation.block import Block
from fedalt.alternation.phase import Phase, View
from fedalt.clients.kernels.gradient import GradientKernel
from fedalt.clients.kernels.settings import KEYS
from fedalt.errors import ConfigError, FedaltError
from fedalt.modes import SEQUENTIAL

METHODS: dict[str, dict[str, Any]] = {
    "ewc": {"ewc_lambda": 2.0},
    "online ewc": {"ewc_lambda": 2.0, "ewc_decay": 0.9, "fisher": "sampled", "fisher_rows": 7},
    "si": {"si_c": 0.1},
    "lwf": {"lwf_alpha": 1.0},
    "replay": {"replay_memory": 7, "replay_batch": 3},
    "agem": {"agem_memory": 7},
    "ewc and replay": {"ewc_lambda": 2.0, "replay_memory": 7},
    "lwf and replay": {"lwf_alpha": 1.0, "replay_memory": 7},
    "all": {
        "ewc_lambda": 2.0,
        "si_c": 0.1,
        "lwf_alpha": 1.0,
        "replay_memory": 7,
        "agem_memory": 5,
    },
}
WALK = (0, 0, 1, 1, 2)


@pytest.mark.parametrize("name", METHODS)
def test_it_changes_training_once_a_task_has_ended_and_not_before(name: str) -> None:
    plain, walker = Walker(Softmax(), {}), Walker(Softmax(), METHODS[name])
    for experience in (0, 0):
        plain.go(experience)
        walker.go(experience)
    assert same(plain.arrays, walker.arrays)
    for experience in (1, 1):
        plain.go(experience)
        walker.go(experience)
    assert not same(plain.arrays, walker.arrays)


@pytest.mark.parametrize("environment", ["power_law", "upper"])
def test_it_works_beside_rehearsal(environment: str) -> None:
    from fedalt.alternation.environment import Environment

    law = Environment(environment, exponent=1.0 if environment == "power_law" else 0.0)
    walker = Walker(
        Softmax(), METHODS["all"], stream={"environments": (law,), "rehearsal": 0.5, "new": 8}
    )
    for experience in WALK:
        work = walker.go(experience)
    assert work.num_examples > 8
    assert all(np.isfinite(array).all() for array in walker.arrays.values())


@pytest.mark.parametrize("name", METHODS)
def test_a_resumed_client_ends_on_the_same_bits(name: str, tmp_path: Any) -> None:
    whole = Walker(Softmax(), METHODS[name])
    for experience in WALK:
        whole.go(experience)
    first = Walker(Softmax(), METHODS[name])
    for experience in WALK[:3]:
        first.go(experience)
    np.savez(tmp_path / "state.npz", **{k.replace("/", "|"): v for k, v in first.state.items()})
    with np.load(tmp_path / "state.npz") as stored:
        state = {key.replace("|", "/"): stored[key] for key in stored.files}
    second = Walker(Softmax(), METHODS[name], state=state, arrays=first.arrays, round=3)
    for experience in WALK[3:]:
        second.go(experience)
    assert same(second.arrays, whole.arrays)
    assert same(second.state, whole.state)


@pytest.mark.parametrize("name", METHODS)
def test_work_that_fails_leaves_the_state_as_it_was(name: str) -> None:
    walker = Walker(Softmax(), METHODS[name])
    walker.go(0)
    former = {key: value.copy() for key, value in walker.state.items()}
    arrays = walker.arrays
    walker.params = {**METHODS[name], "lr": 3e38}
    with pytest.raises(FedaltError, match=r"ward-0.*(loss is|parameter is not finite)"):
        walker.go(1)
    assert same(walker.state, former)
    walker.params, walker.arrays = METHODS[name], arrays
    walker.go(1)
    fresh = Walker(Softmax(), METHODS[name])
    fresh.go(0)
    fresh.round = 2
    fresh.go(1)
    assert same(walker.state, fresh.state)


def test_arrays_in_the_state_are_replaced_and_never_changed() -> None:
    walker = Walker(Softmax(), METHODS["all"])
    walker.go(0)
    walker.go(1)
    for value in walker.state.values():
        value.setflags(write=False)
    former = {key: (value, value.copy()) for key, value in walker.state.items()}
    walker.go(1)
    walker.go(2)
    assert all(np.array_equal(value, copy) for value, copy in former.values())


def test_a_block_of_buffers_alone_learns_as_without_methods() -> None:
    """There is no gradient to change and nothing to hold; replay shows it more rows."""
    task = Softmax(normed, blocks=(Block("norms", ("1.running_*", "1.num*")),))
    found = []
    for params in ({}, {"ewc_lambda": 2.0, "si_c": 0.1, "lwf_alpha": 1.0, "agem_memory": 5}):
        walker = Walker(task, params, settings={"train": ("norms",)})
        for experience in WALK:
            walker.go(experience)
        found.append(walker.arrays)
    assert same(*found)


def test_a_method_switched_on_late_consolidates_the_task_that_ended_last() -> None:
    walker = Walker(Softmax(), {})
    walker.go(0)
    walker.params = {"ewc_lambda": 1.0, "replay_memory": 4}
    walker.go(1)
    assert walker.state["ewc/fit/strength/0.weight"].any()
    assert set(walker.state["memory/fit/replay/held"][:, 0]) == {0}


def test_two_phases_of_a_round_each_meet_a_task_for_themselves() -> None:
    """Another phase of the stream came first: this one's task has ended all the same."""
    walker = Walker(Softmax(), {"ewc_lambda": 1.0})
    walker.go(0)
    other = Walker(Softmax(), {}, state=walker.state, arrays=walker.arrays, round=1)
    other.go(1)
    walker.go(1)
    assert walker.state["ewc/fit/strength/0.weight"].any()


@pytest.mark.parametrize("mode", ["batched:2", "compiled"])
def test_a_fast_mode_that_was_told_is_refused_with_the_reason(mode: str) -> None:
    walker = Walker(Softmax(), METHODS["ewc and replay"], mode=mode)
    message = (
        rf"phase 'fit': engine.mode={mode} cannot compute it: params ask for ewc, replay, "
        "which .*; choose engine.mode=auto or sequential"
    )
    with pytest.raises(ConfigError, match=message):
        walker.go(0)


def test_auto_settles_on_the_reference() -> None:
    walker, plain = (Walker(Softmax(), METHODS["all"], mode=m) for m in ("auto", "sequential"))
    for experience in WALK:
        walker.go(experience)
        plain.go(experience)
    assert same(walker.arrays, plain.arrays)
    assert walker.kernel.export_facts()["fit"]["mode"] == "sequential"


def test_a_probe_leaves_fast_modes_out_for_the_reason() -> None:
    walker = Walker(Softmax(), METHODS["ewc"], mode="auto")
    order = replace(walker.order(0), rounds=10**6)
    sites = [replace(walker.site({}), site=number) for number in range(2)]
    assert walker.kernel.choose(order, sites) == SEQUENTIAL
    reasons = walker.kernel.export_facts()["fit"]["left_out"]
    assert {"batched:2", "compiled"} <= set(reasons)
    assert "params ask for ewc" in reasons["batched:2"]


def test_a_method_without_a_stream_is_told_what_to_do() -> None:
    message = r"phase 'fit': params ask for ewc, si, which needs to know when a task ends: .*stream"
    with pytest.raises(ConfigError, match=message):
        GradientKernel().check(Phase("fit", params={"ewc_lambda": 1, "si_c": 0.1}))
    walker = Walker(Softmax(), {"lwf_alpha": 1.0}, settings={"view": View()})
    with pytest.raises(ConfigError, match="phase 'fit': params ask for lwf"):
        walker.go(0)
    GradientKernel().check(Phase("fit", params={"ewc_lambda": 0, "fisher": "exact"}))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"ewc_lamda": 1.0}, r"unknown params.ewc_lamda \(did you mean 'ewc_lambda'"),
        ({"ewc_lambda": -1.0}, "params.ewc_lambda is -1, but must be at least 0"),
        ({"ewc_lambda": True}, "params.ewc_lambda is True, but must be a finite number"),
        ({"ewc_lambda": 1, "ewc_decay": 1.5}, r"params.ewc_decay is 1.5, but must lie in \[0, 1\]"),
        ({"ewc_lambda": 1, "fisher": "exakt"}, r"no 'exakt' \(did you mean 'exact'"),
        ({"ewc_lambda": 1, "fisher": True}, "params.fisher: no 'True'"),
        ({"ewc_lambda": 1, "fisher_rows": 2.5}, "params.fisher_rows is 2.5, .* whole number"),
        ({"si_c": 1, "si_damping": 0}, "params.si_damping is 0, but must be above 0"),
        ({"lwf_alpha": 1, "lwf_temperature": 0}, "lwf_temperature is 0, but must be above 0"),
        ({"replay_memory": -3}, "params.replay_memory is -3, .* whole number, 0 or more"),
        ({"agem_memory": 1, "agem_batch": "x"}, "params.agem_batch is 'x'"),
        ({"replay_batch": 4}, "params.replay_batch means nothing without params.replay_memory"),
        ({"ewc_decay": 0.5}, "params.ewc_decay means nothing without params.ewc_lambda"),
    ],
)
def test_wrong_settings_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"phase 'fit': .*{message}"):
        GradientKernel().check(phase_of(params=params))


def test_every_setting_is_known_to_the_kernel() -> None:
    assert {key for params in METHODS.values() for key in params} <= set(KEYS)


def test_torchs_randomness_is_left_as_it_was() -> None:
    left = []
    for params in ({}, {**METHODS["all"], "fisher": "sampled"}):
        torch.manual_seed(4)
        walker = Walker(Softmax(), params)
        for experience in WALK:
            walker.go(experience)
        left.append(torch.rand(3))
    assert torch.equal(*left)

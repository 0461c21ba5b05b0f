"""A benchmark compares nothing unless all do the same work: same cohorts, batches, averages."""

from __future__ import annotations

import importlib
from dataclasses import replace

import numpy as np
import pytest
import run_bare_continual
from continual_work import SHAPES, Continual, shares
from run_bare import train
from run_fedalt import STRATEGIES, configure
from run_fedalt_continual import configure_stream
from summary import summarise
from work import WORKS, Work

from fedalt.alternation import History, Planner, parse_schedule
from fedalt.alternation.site import Site
from fedalt.seeds import Seeds


def small(name: str) -> Work:
    """Return a work of 6 clients of any size on random images."""
    ends = np.cumsum([0, 13, 20, 17, 11, 25, 12])
    rng = np.random.default_rng(1)
    x = rng.random((ends[-1], 1, 28, 28), dtype=np.float32)
    y = rng.integers(0, 10, ends[-1])
    return replace(WORKS[name], clients=6, cohort=4, rounds=2, ends=ends, x=x, y=y)


def bare(work: Work) -> dict[str, np.ndarray]:
    """Return the bare loop's final weights."""
    return {name: value.numpy() for name, value in train(work, work.orders()).state_dict().items()}


def agree(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    """Fail unless two sets of weights are the same but for rounding."""
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_allclose(values, other[name], rtol=1e-4, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("name", ["logistic", "mlp", "cnn"])
def test_the_limit_ends_on_the_bare_loops_weights(name: str) -> None:
    work = small(name)
    one_round = importlib.import_module(f"limit_{name}").one_round
    orders, arrays = work.orders(), work.initial()
    for number in (1, 2):
        chosen = [orders[number, client] for client in work.cohort_of(number)]
        arrays = one_round(work, chosen, arrays)
    agree(arrays, bare(work))


def test_fedalt_ends_on_the_bare_loops_weights() -> None:
    from fedalt_run import run
    from fedalt_task import BenchTask
    from measure import Meter

    work = small("mlp")
    task = BenchTask(work)
    run(configure(work, STRATEGIES["blockwise"], {}), task, Meter())
    agree(task.final, bare(work))


def test_cohorts_are_those_that_fedalt_draws() -> None:
    work = WORKS["logistic"]
    config = configure(work, STRATEGIES["blockwise"], {})
    sites = [Site(i, f"client-{i}", 1) for i in range(work.clients)]
    schedule = parse_schedule(config["phases"], config["schedule"])
    planner = Planner(schedule, Seeds(config["seed"]).at("schedule"), sites)
    for number in (1, 2, 3):
        planned = planner.plan(number, History())
        assert planned is not None
        assert [site.index for site in planned.parts[0].cohort] == work.cohort_of(number)


def small_stream() -> Continual:
    """Return a stream of 4 tasks of 150 random images, 15 of which are rehearsed."""
    rng = np.random.default_rng(1)
    x, y = rng.random((150, 196), dtype=np.float32), rng.integers(0, 10, 150)
    pixels = np.stack([rng.permutation(196) for _ in range(4)])
    return Continual(4, "", x, y, pixels, x, y)


def test_a_stream_ends_on_the_bare_loops_weights() -> None:
    from fedalt_run import run
    from fedalt_task import ContinualTask
    from measure import Meter

    work = small_stream()
    task = ContinualTask(work)
    run(configure_stream(work, {}), task, Meter())
    plain = run_bare_continual.train(work, run_bare_continual.batches_of(work)).state_dict()
    assert set(plain) == set(SHAPES)
    agree(task.final, {name: value.numpy() for name, value in plain.items()})
    assert not np.allclose(task.final["head.weight"], work.initial()["head.weight"], atol=1e-3)


@pytest.mark.parametrize("past", range(21))
def test_shares_are_those_of_the_environment(past: int) -> None:
    from fedalt.alternation.environment import PRESETS

    lags = list(range(past, 0, -1))
    seen = [2000] * past
    assert shares(200, past) == PRESETS["inverse_lag"].counts(lags, 2000, 0.1, seen)


def test_ratios_compare_runs_of_one_turn() -> None:
    def line(engine: str, repeat: int, cost: float) -> dict[str, object]:
        costs = dict.fromkeys(("cpu_ms_per_client_round", "wall_ms_per_client_round"), cost)
        rest = dict.fromkeys(("startup_cpu_s", "startup_wall_s", "peak_mb", "accuracy"), 0.5)
        told = {"work": "cnn", "source": "", "order": ""}
        return {"engine": engine, "repeat": repeat, **costs, **rest, **told}

    # The machine was twice as slow in the second turn, and the third has no reference.
    lines = [line("fedalt", 0, 2), line("pfl", 0, 6), line("fedalt", 1, 4), line("pfl", 1, 12)]
    rows = summarise([*lines, line("pfl", 2, 90)], ["cnn"], "fedalt")
    assert [(row.engine, row.cpu_ratio) for row in rows] == [("fedalt", 1.0), ("pfl", 3.0)]
    assert rows[1].cpu_ms_per_client_round == 12

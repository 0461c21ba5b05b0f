"""Strategies: ours in Flower's loop, faulty ones in ours, and the state of any of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federations import LeastSquares, federate
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from fedalt.alternation.block import Block, BlockMap
from fedalt.alternation.phase import Phase
from fedalt.alternation.site import Site
from fedalt.errors import AdmissionError, CheckpointError, ConfigError, FedaltError, ScheduleError
from fedalt.grids.local import LocalGrid
from fedalt.runs.checkpoint import newest_checkpoint
from fedalt.runs.folder import RunFolder
from fedalt.runs.simulate import simulate
from fedalt.seeds import Seeds
from fedalt.server import app as server_app
from fedalt.server.strategies.blockwise import Blockwise, group_by_rule, pool_metrics
from fedalt.server.strategies.book import StrategyBook
from fedalt.wire.records import Reply, record_of
from fedalt.wire.report import ClientReport

BLOCKS = BlockMap.of(("a", "b", "c"), [Block("ab", ("a", "b")), Block("bc", ("b", "c"))])


# --- faulty strategies -------------------------------------------------------------------


class Faulty(FedAvg):
    """FedAvg whose aggregate goes through ``spoil``."""

    def __init__(self, spoil: Callable[[ArrayRecord], Any]) -> None:
        super().__init__(fraction_evaluate=0.0)
        self.spoil = spoil

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        arrays, metrics = super().aggregate_train(server_round, replies)
        assert arrays is not None
        return (arrays, metrics) if server_round == 1 else self.spoil(arrays)


def spoiled(arrays: ArrayRecord, **changes: np.ndarray) -> tuple[ArrayRecord, None]:
    return ArrayRecord({**arrays, **{k: Array(v) for k, v in changes.items()}}), None


def use(monkeypatch: pytest.MonkeyPatch, made: Callable[[], Any]) -> None:
    """Let runs use a strategy that configuration could not build."""
    monkeypatch.setattr(server_app, "build", lambda spec, where: made())


BAD: dict[str, tuple[Callable[[ArrayRecord], Any], str]] = {
    "nan": (lambda a: spoiled(a, bias=np.array([np.nan])), "aggregate of 'bias' is not finite"),
    "inf": (lambda a: spoiled(a, bias=np.array([-np.inf])), "aggregate of 'bias' is not finite"),
    "shape": (lambda a: spoiled(a, weight=np.zeros(3)), r"'weight' as \(3,\), the model has"),
    "unknown": (lambda a: spoiled(a, other=np.zeros(3)), "'other', not trained here"),
    "list": (lambda a: (a, MetricRecord({"x": [1.0, 2.0]})), "metric 'x' is a list"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_a_faulty_strategy_returns_is_not_committed(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil, message = BAD[case]
    use(monkeypatch, lambda: Faulty(spoil))
    with pytest.raises(FedaltError, match=rf"round 2, phase 'train'.*{message}"):
        federate(LeastSquares(), tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    snapshot, _ = newest_checkpoint(run.checkpoints)
    assert snapshot is not None and snapshot.round == 1
    assert run.status()["state"] == "failed" and run.result() is None


@pytest.mark.parametrize("nothing", [None, (None, None)])
def test_a_strategy_that_returns_nothing_changes_nothing(
    nothing: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, lambda: Faulty(lambda arrays: nothing))
    result, _ = federate(LeastSquares(), tmp_path / "run", rounds=3)
    first, _ = federate(LeastSquares(), tmp_path / "first", rounds=1)
    assert result["round"] == 3
    assert result["weights_sha256"] == first["weights_sha256"]


def test_an_aggregate_beyond_the_models_type_is_not_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Single(LeastSquares):
        def initial_arrays(self, seeds: Seeds) -> dict[str, np.ndarray]:
            arrays = super().initial_arrays(seeds)
            return {name: values.astype(np.float32) for name, values in arrays.items()}

        def model(self) -> Any:
            return super().model().float()

        def site_data(self, site: int) -> Any:
            return tuple(part.float() for part in super().site_data(site))

    use(monkeypatch, lambda: Faulty(lambda a: spoiled(a, bias=np.array([1e39]))))
    with pytest.raises(AdmissionError, match="'bias' is not finite as float32"):
        federate(Single(), tmp_path / "run")


class Addressing(FedAvg):
    """FedAvg that sends to nodes of its own choice."""

    def __init__(self, choose: Callable[[list[int], list[int]], list[int]]) -> None:
        super().__init__(fraction_evaluate=0.0)
        self.choose = choose
        self.everyone: list[int] = []

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        cohort = list(grid.get_node_ids())
        outside = [n for n in grid._grid.get_node_ids() if n not in cohort]  # type: ignore[attr-defined]
        content = RecordDict({"arrays": arrays, "config": config})
        return [
            Message(content, dst_node_id=node, message_type="train")
            for node in self.choose(cohort, outside)
        ]


@pytest.mark.parametrize(
    ("choose", "message"),
    [
        (lambda cohort, outside: [*cohort, outside[0]], "which the schedule did not select"),
        (lambda cohort, outside: [*cohort, cohort[0]], "more than one message"),
        (lambda cohort, outside: [5], r"nodes \[5\], which the schedule did not select"),
    ],
)
def test_a_strategy_reaches_nobody_but_the_cohort_and_each_once(
    choose: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is reached must be in the ledger, as often as it is reached."""
    use(monkeypatch, lambda: Addressing(choose))
    phases = {"train": {"clients": {"where": {"modality": "ct"}}}}
    with pytest.raises(ConfigError, match=rf"round 1, phase 'train'.*{message}"):
        federate(LeastSquares(), tmp_path / "run", phases=phases)


def test_a_content_of_its_own_for_every_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contents are told apart by identity; one that is freed must not lend its own to another."""

    class Personal(FedAvg):
        def configure_train(self, *arguments: Any) -> list[Message]:
            messages = list(super().configure_train(*arguments))
            for place, message in enumerate(messages):
                config = ConfigRecord({"proximal-mu": 0.0, "place": place})
                message.content = RecordDict({"arrays": message.content["arrays"], "c": config})
            return messages

    use(monkeypatch, lambda: Personal(fraction_evaluate=0.0))
    seen: list[tuple[int, int]] = []
    from fedalt.clients.kernels import gradient

    cohort = gradient.GradientKernel.cohort

    def spy(self: Any, order: Any, sites: Any) -> Any:
        seen.extend((site.site, int(order.extras["place"])) for site in sites)
        return cohort(self, order, sites)

    monkeypatch.setattr(gradient.GradientKernel, "cohort", spy)
    federate(LeastSquares(60), tmp_path / "run", rounds=2)
    assert [site for site, _ in seen] == [*range(60), *range(60)]
    assert len({place for _, place in seen[:60]}) == 60, "every client has its own settings"


# --- blockwise ---------------------------------------------------------------------------


def test_every_block_has_its_rule(tmp_path: Path) -> None:
    task = LeastSquares()
    _, snapshot = federate(
        task,
        tmp_path / "run",
        rounds=1,
        phases={
            "train": {
                "batch_size": 10_000,
                "train": ["slope", "offset"],
                "aggregate": {"slope": "median", "offset": "keep"},
                "params": {"lr": 0.1},
            }
        },
    )
    w = np.array([0.5, 0.5, 0.5])
    steps = [w - 0.1 * x.T @ (x @ w - y) / len(x) for x, y in zip(task.x, task.y, strict=True)]
    np.testing.assert_allclose(snapshot.model["weight"][0], np.median(steps, axis=0), rtol=1e-12)
    assert snapshot.model["bias"].tobytes() == np.zeros(1).tobytes()


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        (Phase("p", train=("ab", "bc")), "'b' belongs to both 'ab' and 'bc'"),
        (Phase("p", train=("ab",), aggregate={"bc": "mean"}), "names block 'bc', which it does"),
        (Phase("p", train=("zz",)), "zz"),
    ],
)
def test_blocks_that_do_not_fit_are_refused(phase: Phase, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        group_by_rule(phase, BLOCKS)


def test_an_unknown_rule_is_refused_with_the_nearest() -> None:
    strategy = Blockwise()
    strategy.enter_phase(Phase("p", aggregate={"all": "medain"}), BLOCKS, [Site(0, "a", 1)])
    strategy._current = {name: np.zeros(1) for name in "abc"}
    with pytest.raises(ConfigError, match=r"no aggregation rule 'medain'.*'median'"):
        strategy.aggregate_train(1, reply_messages())


def reply_messages() -> list[Message]:
    grid = LocalGrid(plain_client(), 1, {}, Seeds(0))
    content = RecordDict({"arrays": record_of({name: np.zeros(1) for name in "abc"})})
    node = next(iter(grid.get_node_ids()))
    return list(grid.send_and_receive([Message(content, dst_node_id=node, message_type="train")]))


def answer(weight: float, **metrics: float) -> Reply:
    report = ClientReport("run", 1, "p", 0, int(weight), 0, 0.0)
    return Reply(report, {}, {"num-examples": weight, **metrics})


def test_metrics_are_pooled_by_examples_with_their_extremes() -> None:
    pooled = pool_metrics([answer(1, loss=4.0, auc=0.5), answer(3, loss=8.0), answer(0, loss=1.0)])
    assert pooled == {
        "auc": 0.5,
        "auc.min": 0.5,
        "auc.max": 0.5,
        "loss": 7.0,
        "loss.min": 1.0,
        "loss.max": 8.0,
    }


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_a_metric_that_is_no_number_is_left_out_of_the_pool(order: tuple[int, ...]) -> None:
    answers = [answer(1, loss=4.0), answer(9, loss=float("nan")), answer(3, loss=8.0)]
    pooled = pool_metrics([answers[i] for i in order])
    assert pooled == {"loss": 7.0, "loss.min": 4.0, "loss.max": 8.0}
    assert pool_metrics([answer(9, loss=float("nan"))]) == {}


def plain_client() -> ClientApp:
    """A Flower client that has never heard of fedalt: adds its number to every weight."""
    app = ClientApp()

    def work(message: Message, context: Context) -> Message:
        place = int(context.node_config["partition-id"])
        record = next(iter(message.content.array_records.values()))
        made = {k: Array(a.numpy() + place) for k, a in record.items()}
        metrics = MetricRecord({"num-examples": place + 1, "place": float(place)})
        return Message(
            RecordDict({"arrays": ArrayRecord(made), "metrics": metrics}), reply_to=message
        )

    app.train()(work)
    app.evaluate()(work)
    return app


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ours_works_in_flowers_own_loop_with_flowers_own_clients() -> None:
    strategy = Blockwise()
    blocks = BlockMap.of(("a", "b"), [Block("left", ("a",)), Block("right", ("b",))])
    phase = Phase("p", train=("left", "right"), aggregate={"right": "median"})
    strategy.enter_phase(phase, blocks, [Site(i, f"site-{i}", 1) for i in range(3)])
    grid = LocalGrid(plain_client(), 3, {}, Seeds(0))
    start = ArrayRecord({"a": Array(np.zeros(2)), "b": Array(np.ones(2))})
    result = strategy.start(grid, start, num_rounds=2)
    np.testing.assert_allclose(result.arrays["a"].numpy(), 2 * (0 + 2 + 6) / 6)
    np.testing.assert_allclose(result.arrays["b"].numpy(), 1 + 2 * 1.0)
    assert result.train_metrics_clientapp[2]["place.max"] == 2.0
    assert result.evaluate_metrics_clientapp[1]["place"] == pytest.approx(8 / 6)


# --- state -------------------------------------------------------------------------------


class Stateful(FedAvg):
    """A strategy with one attribute of its own."""

    def __init__(self, value: Any = None) -> None:
        super().__init__(fraction_evaluate=0.0)
        self.value = value


@pytest.mark.parametrize(
    "value",
    [
        3,
        "text",
        None,
        [0.5, 1.5],
        {"a": 1},
        {2**62: 7, 5: None},
        {},
        [],
        b"tree",
        np.arange(3),
        [np.ones(2), np.zeros(())],
        {"a/b": np.float64(2.0)},
    ],
    ids=repr,
)
def test_a_stock_strategys_state_survives(value: Any) -> None:
    def book_of(made: Callable[[], Stateful]) -> StrategyBook:
        return StrategyBook(made, BLOCKS, 3)

    old, new = book_of(lambda: Stateful(value)), book_of(Stateful)
    old(Phase("p.1"))
    arrays, facts = old.export_states()
    new.import_states(arrays, facts)
    found = new(Phase("p.1")).value  # type: ignore[attr-defined]
    np.testing.assert_equal(found, value)
    assert isinstance(found, type(value)) or isinstance(value, np.generic | list | dict)


def test_state_that_cannot_be_committed_is_refused_not_lost() -> None:
    book = StrategyBook(lambda: Stateful({1: {2, 3}}), BLOCKS, 3)
    book(Phase("p"))
    with pytest.raises(CheckpointError, match="Stateful cannot be committed: 'value' is a dict"):
        book.export_states()


class Subspaces(LeastSquares):
    """Every site sends the same leading columns, turned by its number."""

    def initial_arrays(self, seeds: Seeds) -> dict[str, np.ndarray]:
        return {"subspace": np.linalg.qr(seeds.numpy().standard_normal((4, 2)))[0]}

    def evaluate(self, arrays: Any) -> dict[str, float]:
        return {}


def test_a_consensus_table_survives_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedalt.clients.kernels import KernelTable
    from fedalt.clients.kernels.base import Order, SiteContext, Work

    def turn(order: Order, site: SiteContext) -> Work:
        moved = order.arrays["subspace"] + 0.3 * site.seeds.numpy().standard_normal((4, 2))
        return Work({"subspace": moved}, 10 + site.site, {"x": 1.0})

    monkeypatch.setattr(KernelTable, "__call__", lambda self, name: turn)
    phase = {
        "clients": {"mode": "fixed", "count": 2},
        "aggregate": {"all": "consensus"},
        "params": {"table": True},
    }
    task = Subspaces()
    task.blocks = []
    whole, last = federate(task, tmp_path / "whole", rounds=5, phases={"train": phase})
    assert last.strategies["train"]["all|counts"].astype(bool).sum() > 2
    federate(task, tmp_path / "half", rounds=2, phases={"train": phase})
    run = RunFolder(tmp_path / "half")
    resumed = simulate({**run.config(), "rounds": 5}, run, lambda spec: task)  # type: ignore[arg-type]
    assert resumed["weights_sha256"] == whole["weights_sha256"]

"""Client-level privacy at the server: no client moves the sum by more than its sensitivity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federations import LeastSquares, Stop, federate, settings
from flwr.app import MetricRecord
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
    FedMedian,
    FedTrimmedAvg,
    Krum,
    QFedAvg,
)
from private_cohorts import (
    SEEDS,
    SITES,
    STRATEGIES,
    Named,
    Shown,
    blocks_of,
    identify,
    model,
    moved,
    norm,
    phase_of,
    release,
    reply,
    wrapped,
)
from scipy import stats

from fedalt.alternation import Phase, Selector
from fedalt.alternation.privacy_spec import PrivacySpec
from fedalt.errors import ConfigError
from fedalt.privacy.noise import noise_generator
from fedalt.privacy.sampling import expected_clients
from fedalt.seeds import Seeds
from fedalt.server.strategies.blockwise import Blockwise
from fedalt.server.strategies.book import StrategyBook, rebase
from fedalt.server.strategies.private import Private, check_private
from fedalt.wire.arrays import record_of

CLIP = 0.5


@pytest.fixture(autouse=True)
def _identity(monkeypatch: pytest.MonkeyPatch) -> None:
    identify(monkeypatch)


POISSON = Selector(mode="poisson", rate=0.25)


def cohort(arrays: Named, count: int = 5, by: float = 0.3) -> list[Any]:
    return [reply(i, moved(arrays, by * (1 + i), i), examples=10 + i) for i in range(count)]


def shown(name: str, arrays: Named, replies: list[Any], **spec: Any) -> Named:
    """What a wrapped strategy is shown of a cohort."""
    inner = STRATEGIES[name]()
    seen = Shown(inner)
    private = wrapped(arrays, phase_of(POISSON, **spec), inner)
    release(private, arrays, replies)
    assert seen.examples == [1.0]
    return seen.replies[0]


# --- sensitivity --------------------------------------------------------------------------

ATTACKS = {
    "examples": lambda arrays: reply(9, moved(arrays, 0.3, 99), examples=1_000_000_000),
    "norm": lambda arrays: reply(9, moved(arrays, 1e30, 99), examples=10),
    "both": lambda arrays: reply(9, moved(arrays, 1e30, 99), examples=1_000_000_000),
    "huge": lambda arrays: reply(9, {k: np.full_like(v, 1e200) for k, v in arrays.items()}),
    "overflow": lambda arrays: reply(9, {k: np.full_like(v, -1.7e308) for k, v in arrays.items()}),
    "not finite": lambda arrays: reply(9, {k: np.full_like(v, np.nan) for k, v in arrays.items()}),
    "nothing": lambda arrays: reply(9, arrays, examples=0),
}


@pytest.mark.parametrize("weight_cap", [0.0, 12.0])
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_client_moves_the_sum_by_no_more_than_the_clip(
    name: str, attack: str, weight_cap: float
) -> None:
    arrays = model()
    others = cohort(arrays)
    spec = {"clip": CLIP, "weight_cap": weight_cap}
    without = shown(name, arrays, others, **spec)
    with_it = shown(name, arrays, [*others, ATTACKS[attack](arrays)], **spec)
    # 20 sites at a rate of 0.25: five are expected, whoever comes.
    difference = {k: 5.0 * (with_it[k] - without[k]) for k in arrays}
    assert norm(difference) <= CLIP + 1e-12
    if attack in ("norm", "both", "huge"):
        weight = 10 / 12 if weight_cap and attack != "both" else 1.0
        assert norm(difference) == pytest.approx(CLIP * weight, abs=1e-12)


def test_a_client_moves_each_block_by_no_more_than_its_own_clip() -> None:
    arrays, clips = model(), {"enc": 0.2, "head": 3.0}
    others = cohort(arrays)
    one = reply(9, moved(arrays, 1e9, 7), examples=1_000_000_000)
    without, with_it = (shown("FedAvg", arrays, r, clips=clips) for r in (others, [*others, one]))
    for block, bound in clips.items():
        part = {k: 5.0 * (with_it[k] - without[k]) for k in arrays if k.startswith(block)}
        assert norm(part) == pytest.approx(bound, abs=1e-12)


def test_of_two_replies_of_one_site_the_first_counts() -> None:
    arrays = model()
    others = cohort(arrays)
    again = [*others, reply(0, moved(arrays, 100.0, 5), examples=3)]
    for name, values in shown("FedAvg", arrays, others).items():
        np.testing.assert_array_equal(shown("FedAvg", arrays, again)[name], values)


def test_the_order_of_replies_does_not_matter() -> None:
    arrays = model()
    others = cohort(arrays)
    for name, values in shown("FedAvg", arrays, others).items():
        np.testing.assert_array_equal(shown("FedAvg", arrays, others[::-1])[name], values)


# --- against numpy ------------------------------------------------------------------------


def reference(
    arrays: Named, replies: list[tuple[Named, int]], spec: PrivacySpec, m: float, number: int
) -> Named:
    """The noised mean as numpy has it, for one clip over all arrays."""
    flat = np.concatenate([v.reshape(-1) for v in arrays.values()])
    total = np.zeros_like(flat)
    for answer, examples in replies:
        update = np.concatenate([v.reshape(-1) for v in answer.values()]) - flat
        weight = min(examples, spec.weight_cap) / spec.weight_cap if spec.weight_cap else 1.0
        total += weight * update * min(1.0, spec.clip / np.linalg.norm(update))
    rng = noise_generator("seeded", SEEDS.at("round", number, "phase", "train"))
    total += spec.noise * spec.clip * rng.standard_normal(flat.size)
    mean, found, start = flat + total / m, {}, 0
    for name, values in arrays.items():
        found[name] = mean[start : start + values.size].reshape(values.shape)
        start += values.size
    return found


@pytest.mark.parametrize("weight_cap", [0.0, 12.0])
@pytest.mark.parametrize("denominator", [0.0, 40.0])
def test_the_mean_is_that_of_numpy(weight_cap: float, denominator: float) -> None:
    arrays = model()
    phase = phase_of(POISSON, clip=CLIP, noise=0.8, weight_cap=weight_cap, denominator=denominator)
    answers = [(moved(arrays, 0.3 * i + 0.1, i), 10 + i) for i in range(5)]
    private = wrapped(arrays, phase)
    replies = [reply(i, a, n) for i, (a, n) in enumerate(answers)]
    found, metrics = release(private, arrays, replies, number=3)
    assert phase.privacy is not None
    wanted = reference(arrays, answers, phase.privacy, denominator or 5.0, 3)
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-14)
    assert dict(metrics) == {"noise_std": pytest.approx(0.4), "clip": CLIP}
    assert private.applied is not None
    assert private.applied.denominator == (denominator or 5.0)
    assert private.applied.weights == ("min(n, 12)/12" if weight_cap else "uniform")


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_server_optimiser_steps_as_from_one_client_with_the_noised_mean(name: str) -> None:
    arrays = model()
    phase = phase_of(POISSON, clip=CLIP, noise=0.8)
    private, alone = wrapped(arrays, phase, STRATEGIES[name]()), STRATEGIES[name]()
    if name == "Blockwise":
        alone.enter_phase(Phase("train"), blocks_of(arrays), SITES)
    else:
        alone.min_train_nodes = alone.min_available_nodes = 1
    for number in range(1, 5):
        # In round 3 nobody comes.
        count = 0 if number == 3 else 4
        answers = [(moved(arrays, 0.3 * i + 0.1, 10 * number + i), 10) for i in range(count)]
        assert phase.privacy is not None
        mean = reference(arrays, answers, phase.privacy, 5.0, number)
        for strategy in (private, alone):
            rebase(strategy, record_of(arrays))
        replies = [reply(i, a, n) for i, (a, n) in enumerate(answers)]
        found, _ = release(private, arrays, replies, number)
        wanted, _ = release(alone, arrays, [reply(0, mean, 1)], number)
        for key, values in wanted.items():
            np.testing.assert_allclose(found[key], values, rtol=1e-10, atol=1e-12)
        arrays = wanted


def test_arrays_keep_their_type() -> None:
    arrays = {k: v.astype(np.float32) for k, v in model().items()}
    inner = FedAvg()
    seen = Shown(inner)
    release(wrapped(arrays, phase_of(), inner), arrays, cohort(arrays))
    assert {v.dtype for v in seen.replies[0].values()} == {np.dtype(np.float32)}


# --- noise --------------------------------------------------------------------------------

WIDE = {"enc.w": (300, 400), "head.w": (250, 400)}
P = 1e-6


def check_deviation(values: np.ndarray, deviation: float) -> None:
    """Chi-square test at 1e-6, of a variance and of a mean, and of the shape's tails."""
    scaled = np.asarray(values).reshape(-1) / deviation
    assert scaled.size >= 100_000
    low, high = stats.chi2.ppf([P / 2, 1 - P / 2], scaled.size)
    assert low < float(np.square(scaled).sum()) < high
    assert abs(scaled.sum()) / np.sqrt(scaled.size) < stats.norm.isf(P / 2)
    assert stats.kstest(scaled, "norm").pvalue > P


@pytest.mark.parametrize("count", [0, 4])
@pytest.mark.parametrize("clips", [{}, {"enc": 0.2, "head": 5.0}])
def test_noise_is_as_large_as_is_told(count: int, clips: dict[str, float]) -> None:
    arrays, z = model(shapes=WIDE), 1.7
    phase = phase_of(POISSON, rng="os", clip=CLIP, clips=clips, noise=z)
    private = wrapped(arrays, phase)
    answers = [moved(arrays, 3.0, i) for i in range(count)]
    found, _ = release(private, arrays, [reply(i, a) for i, a in enumerate(answers)])
    applied = private.applied
    assert applied is not None and applied.rng == "os:chacha20"
    noise = {}
    for name, old in arrays.items():
        bound = clips.get(name.split(".")[0], CLIP)
        own = [name] if clips else list(arrays)
        total = np.zeros_like(old)
        for answer in answers:
            length = norm({k: answer[k] - arrays[k] for k in own})
            total += (answer[name] - old) * min(1.0, bound / length)
        noise[name] = (found[name] - old) * 5.0 - total
        check_deviation(noise[name], z * bound)
    if not clips:
        check_deviation(np.concatenate([v.reshape(-1) for v in noise.values()]), applied.noise_std)
        assert (applied.sensitivity, applied.noise_multiplier) == (CLIP, z)
    # 1/z² = Σ (C_b/σ_b)² of the blocks, and one number each that stands for all.
    each = [(bound / (z * bound)) ** 2 for bound in clips.values()] or [z**-2]
    assert applied.noise_multiplier == pytest.approx(sum(each) ** -0.5)
    assert applied.noise_std == pytest.approx(applied.noise_multiplier * applied.sensitivity)
    assert (
        applied.clip
        == applied.sensitivity
        == pytest.approx(np.hypot(*clips.values()) if clips else CLIP)
    )


def test_noise_from_the_system_is_never_drawn_again() -> None:
    arrays = model()
    phase = phase_of(rng="os", noise=1.0)
    one, other = (release(wrapped(arrays, phase), arrays, [])[0] for _ in range(2))
    assert all((one[name] != other[name]).all() for name in arrays)


def test_seeded_noise_differs_by_round() -> None:
    arrays = model()
    private = wrapped(arrays, phase_of(noise=1.0))
    one, other, again = (release(private, arrays, [], number)[0] for number in (1, 2, 1))
    assert all((one[name] != other[name]).all() for name in arrays)
    assert all((one[name] == again[name]).all() for name in arrays)


def test_integer_arrays_are_refused() -> None:
    arrays = {**model(), "head.steps": np.arange(3)}
    with pytest.raises(ConfigError, match=r"'head.steps' is int64.*leave its block out"):
        release(wrapped(arrays, phase_of()), arrays, [])


# --- denominators -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selector", "wanted"),
    [
        (Selector(), 20.0),
        (Selector(mode="fixed", count=3), 3.0),
        (Selector(mode="fraction", rate=0.07), 2.0),
        (Selector(mode="fraction", rate=0.15), 3.0),
        (Selector(mode="poisson", rate=0.03), 0.6),
    ],
)
def test_the_number_expected_is_public(selector: Selector, wanted: float) -> None:
    assert expected_clients(Phase("train", clients=selector), SITES) == pytest.approx(wanted)
    arrays = model()
    # However many come, one update is divided by the same number.
    for count in (1, 2, 4):
        private = wrapped(arrays, phase_of(selector, clip=CLIP, noise=1e-12))
        one = moved(arrays, 10.0, 1)
        found, _ = release(private, arrays, [reply(i, one) for i in range(count)])
        step = norm({name: found[name] - arrays[name] for name in arrays})
        assert step == pytest.approx(count * CLIP / wanted, rel=1e-6)


def test_an_expected_number_needs_a_site_that_fits() -> None:
    phase = Phase("train", clients=Selector(where={"modality": ("ct",)}))
    with pytest.raises(ConfigError, match="none of 20 sites fits"):
        expected_clients(phase, SITES)


# --- metrics ------------------------------------------------------------------------------


def test_metrics_of_clients_are_withheld_unless_released() -> None:
    arrays = model()
    replies = [
        reply(i, moved(arrays, 0.3 * (1 + i), i), 10 * (1 + i), {"loss": float(i)})
        for i in range(2)
    ]
    for inner in (FedAvg, Blockwise):
        _, kept = release(wrapped(arrays, phase_of(clip=CLIP), inner()), arrays, replies)
        assert set(kept) == {"noise_std", "clip"}
        told = release(
            wrapped(arrays, phase_of(clip=CLIP, metrics="release"), inner()), arrays, replies
        )[1]
        assert told["loss"] == pytest.approx(2 / 3) and told["loss.max"] == 1.0
        assert told["clipped"] == 0.5


# --- which strategies ---------------------------------------------------------------------


class Sampling(FedAvg):
    """A strategy of one's own that aggregates as FedAvg does."""

    def summary(self) -> None:
        pass


class OwnWay(Blockwise):
    """Blockwise that changes what it aggregates."""

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        return super().aggregate_train(server_round, replies)


def test_strategies_that_no_clip_bounds_are_refused() -> None:
    arrays = model()
    blocks, phase = blocks_of(arrays), phase_of()
    others = [FedMedian(), FedTrimmedAvg(), Krum(num_malicious_nodes=0), QFedAvg(0.1), OwnWay(),
              DifferentialPrivacyServerSideFixedClipping(FedAvg(), 1.0, 1.0, 5)]  # fmt: skip
    for strategy in others:
        with pytest.raises(ConfigError, match="a mechanism without bounded sensitivity"):
            check_private(phase, strategy, blocks)
        with pytest.raises(ConfigError, match=type(strategy).__name__):
            wrapped(arrays, phase, strategy)
        check_private(phase_of(trust="local"), strategy, blocks)
        check_private(Phase("train"), strategy, blocks)
    for make in [*STRATEGIES.values(), Sampling]:
        check_private(phase, make(), blocks)
    with pytest.raises(ConfigError, match=r"fraction_train=1\.0"):
        check_private(phase, FedAvg(fraction_train=0.5), blocks)


@pytest.mark.parametrize("rule", ["median", "sum", "consensus", "quantile", "balanced:modality"])
def test_block_rules_that_no_clip_bounds_are_refused(rule: str) -> None:
    blocks = blocks_of(model())
    spec = PrivacySpec(unit="client")
    good = Phase("train", train=("enc", "head"), aggregate={"head": "keep"}, privacy=spec)
    check_private(good, Blockwise(), blocks)
    bad = Phase("train", train=("enc", "head"), aggregate={"head": rule}, privacy=spec)
    with pytest.raises(ConfigError, match=rf"rule '{rule}' for block 'head'"):
        check_private(bad, Blockwise(), blocks)


def test_a_kept_block_is_kept() -> None:
    arrays = model()
    phase = Phase(
        "train", train=("enc", "head"), aggregate={"head": "keep"},
        privacy=PrivacySpec(unit="client", rng="seeded"),
    )  # fmt: skip
    found, _ = release(wrapped(arrays, phase), arrays, cohort(arrays))
    assert set(found) == {"enc.w", "enc.b"}


def test_proximal_mu_still_reaches_clients() -> None:
    from flwr.app import ConfigRecord

    from fedalt.server.cohort import CohortGrid

    arrays = model()
    private = wrapped(arrays, phase_of(), STRATEGIES["FedProx"]())
    grid = CohortGrid(None, [5], "train")  # type: ignore[arg-type]
    (message,) = private.configure_train(1, record_of(arrays), ConfigRecord(), grid)
    (config,) = message.content.config_records.values()
    assert config["proximal-mu"] == 0.1


# --- sums that others made ----------------------------------------------------------------


def test_a_secure_sum_is_divided_and_handed_on_as_it_is() -> None:
    arrays = model()
    private = wrapped(arrays, phase_of(Selector(mode="fixed", count=4), trust="distributed"))
    total = moved({k: np.zeros_like(v) for k, v in arrays.items()}, 2.0, 3)
    release(private, arrays, [])
    record, metrics = private.aggregate_sum(1, total, 3)
    assert record is not None and dict(metrics or MetricRecord()) == {}
    assert private.applied is None
    for name, old in arrays.items():
        np.testing.assert_allclose(record[name].numpy(), old + total[name] / 4.0, atol=1e-15)


# --- resuming -----------------------------------------------------------------------------

KINDS: dict[str, dict[str, Any]] = {
    "fixed": {},
    "adaptive": {"quantile": 0.5, "count_noise": 2.0, "rate": 0.5},
    "banded": {"mechanism": "banded", "bands": 3},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_resumed_strategy_goes_on_exactly(name: str, kind: str) -> None:
    start = model()
    phase = phase_of(POISSON, noise=1.0, clip=CLIP, **KINDS[kind])

    def book() -> StrategyBook:
        return StrategyBook(STRATEGIES[name], blocks_of(start), SITES, SEEDS)

    def rounds(strategies: StrategyBook, arrays: Named, numbers: range) -> Named:
        for number in numbers:
            strategy = strategies(phase)
            rebase(strategy, record_of(arrays))
            replies = [reply(i, moved(arrays, 0.3 * i, 10 * number + i)) for i in range(4)]
            arrays, _ = release(strategy, arrays, replies, number)
        return arrays

    whole = book()
    halfway = rounds(whole, start, range(1, 5))
    states, facts = whole.export_states()
    again = book()
    again.import_states(states, json.loads(json.dumps(facts)))
    wanted, found = (rounds(one, halfway, range(5, 8)) for one in (whole, again))
    assert isinstance(again(phase), Private)
    for key, values in wanted.items():
        np.testing.assert_array_equal(found[key], values)
    if kind != "fixed":
        # A strategy that had lost its state would not have gone on like that.
        lost = rounds(book(), halfway, range(5, 8))
        assert any((lost[key] != values).any() for key, values in wanted.items())


# --- whole runs ---------------------------------------------------------------------------


def private_run(strategy: str = "", clients: Any = None, **spec: Any) -> dict[str, Any]:
    phases = settings()["phases"]
    phases["train"]["privacy"] = {"unit": "client", "rng": "seeded", "noise": 0.5, **spec}
    phases["train"]["clients"] = clients or {"mode": "all"}
    made = {"_target_": strategy} if strategy else settings()["strategy"]
    return {"phases": phases, "strategy": made}


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def test_a_run_is_that_of_numpy(tmp_path: Path) -> None:
    task = LeastSquares()
    _, snapshot = federate(task, tmp_path / "run", **private_run(clip=0.05), seed=3)
    w, b = np.full(3, 0.5), 0.0
    for number in (1, 2, 3):
        total = np.zeros(4)
        for x, y in zip(task.x, task.y, strict=True):
            residual = x @ w + b - y
            step = -0.1 * np.append(x.T @ residual, residual.sum()) / len(y)
            total += step * min(1.0, 0.05 / np.linalg.norm(step))
        rng = noise_generator("seeded", Seeds(3).at("round", number, "phase", "train"))
        total += 0.5 * 0.05 * rng.standard_normal(4)
        w, b = w + total[:3] / 7, b + total[3] / 7
    np.testing.assert_allclose(snapshot.model["weight"][0], w, atol=1e-12)
    np.testing.assert_allclose(snapshot.model["bias"], [b], atol=1e-12)


@pytest.mark.parametrize("strategy", ["", "flwr.serverapp.strategy.FedAdam"])
def test_rounds_of_nobody_release_noise(strategy: str, tmp_path: Path) -> None:
    few = {"mode": "poisson", "rate": 0.05}
    _, snapshot = federate(
        LeastSquares(), tmp_path / "run", rounds=12, **private_run(strategy, few)
    )
    sizes = [event["sites"]["train"] for event in events(tmp_path / "run", "round")]
    # The chance that none of 12 draws is empty is 10⁻⁶.
    assert len(sizes) == 12 and 0 in sizes
    weights = [event["weights"] for event in events(tmp_path / "run", "committed")]
    assert len(set(weights[-12:])) == 12
    assert all(np.isfinite(values).all() for values in snapshot.model.values())


def test_a_private_run_resumes_exactly(tmp_path: Path) -> None:
    changes = private_run("flwr.serverapp.strategy.FedAdam", quantile=0.6, count_noise=1.0)
    whole, _ = federate(LeastSquares(), tmp_path / "whole", rounds=6, **changes)
    with pytest.raises(Stop):
        federate(LeastSquares(), tmp_path / "cut", stop_at=3, rounds=6, **changes)
    cut, snapshot = federate(LeastSquares(), tmp_path / "cut", rounds=6, **changes)
    assert cut["weights_sha256"] == whole["weights_sha256"]
    clips = [metrics["train/clip"] for metrics in snapshot.facts["history"]["rounds"]]
    assert len(set(clips)) == 6


def test_a_run_with_a_strategy_that_cannot_be_bounded_ends_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="FedMedian is a mechanism without bounded sensitivity"):
        federate(LeastSquares(), tmp_path / "run",
                 **private_run("flwr.serverapp.strategy.FedMedian"))  # fmt: skip

"""Every rule against a plain numpy loop over its definition."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped]

from fedalt import manifold
from fedalt.alternation.phase import Phase, Scalar
from fedalt.alternation.site import Site
from fedalt.errors import AdmissionError, ConfigError, DataError
from fedalt.server.strategies.rules import RULES, rule
from fedalt.server.strategies.rules.base import Aggregate, Contribution, RuleContext
from fedalt.sketch import SCORE_BINS

COUNTS = (10.0, 30.0, 60.0)


def _sites(count: int) -> list[Site]:
    return [Site(i, f"site-{i}", 1) for i in range(count)]


def apply(
    name: str,
    replies: list[dict[str, np.ndarray]],
    current: dict[str, np.ndarray] | None = None,
    counts: tuple[float, ...] = COUNTS,
    params: Mapping[str, Scalar] | None = None,
    state: dict[str, np.ndarray] | None = None,
    sites: tuple[int, ...] = (0, 1, 2),
) -> Aggregate:
    phase = Phase("test", params=params or {})
    held = {} if state is None else state
    ctx = RuleContext(1, phase, current or replies[0], _sites(5), held)
    given = [Contribution(s, n, r) for s, n, r in zip(sites, counts, replies, strict=False)]
    return rule(name)(ctx, given)


def draw(shape: tuple[int, ...], dtype: str = "float64") -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"x": (10 * rng.standard_normal(shape)).astype(dtype)} for _ in COUNTS]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64"])
def test_mean_median_and_sum(dtype: str) -> None:
    replies = draw((4, 3), dtype)
    expected = {"mean": np.zeros((4, 3)), "sum": np.zeros((4, 3))}
    for count, reply in zip(COUNTS, replies, strict=True):
        expected["mean"] += count / 100.0 * reply["x"].astype(np.float64)
        expected["sum"] += reply["x"].astype(np.float64)
    expected["median"] = np.sort([reply["x"] for reply in replies], axis=0)[1].astype(np.float64)
    for name, value in expected.items():
        result = apply(name, replies).arrays["x"]
        assert result.dtype == np.dtype(dtype)
        wanted = np.rint(value) if dtype == "int64" else value
        np.testing.assert_allclose(result, wanted.astype(dtype), rtol=1e-15)


def test_mean_of_scalars_and_of_many_small_float32_accumulates_in_float64() -> None:
    replies = [{"x": np.array(0.1, dtype=np.float32)} for _ in range(10_000)]
    current = {"x": np.zeros((), dtype=np.float32)}
    ctx = RuleContext(1, Phase("test"), current, _sites(10_000), {})
    result = rule("mean")(ctx, [Contribution(i, 1.0, r) for i, r in enumerate(replies)])
    assert result.arrays["x"] == np.float32(0.1)


def test_results_hold_no_clients_or_servers_memory() -> None:
    replies = draw((4, 3))
    for name in ("mean", "median", "sum"):
        result = apply(name, replies[:1]).arrays["x"]
        assert not np.shares_memory(result, replies[0]["x"])


def test_keep_changes_nothing() -> None:
    assert apply("keep", draw((2,))).arrays == {}


def test_unusable_replies_are_refused() -> None:
    replies = draw((4, 3))
    with pytest.raises(AdmissionError, match=r"site 1: array 'x' has shape \(1,\)"):
        apply("mean", [replies[0], {"x": np.ones(1)}], current=replies[0])
    with pytest.raises(AdmissionError, match="site 1: the reply lacks the array 'x'"):
        apply("sum", [replies[0], {}], current=replies[0])
    with pytest.raises(AdmissionError, match="cannot weight a mean"):
        apply("mean", replies, counts=(0.0, 0.0, 0.0))
    with pytest.raises(AdmissionError):
        apply("mean", [], current=replies[0])


def test_unknown_rule_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'consensus'"):
        rule("concensus")
    assert set(RULES) >= {"mean", "median", "sum", "keep"}


def test_pooled_moments_equal_the_scaler_of_all_rows() -> None:
    rng = np.random.default_rng(0)
    shifts = (0.0, 3.0, -50.0)
    parts = [
        np.column_stack(
            [
                shift + rng.standard_normal(int(n)),
                1e6 + shift + 1e-2 * rng.standard_normal(int(n)),
                np.full(int(n), 0.1),
                np.full(int(n), 0.0),
                rng.pareto(1.5, int(n)) * 1e8,
            ]
        )
        for n, shift in zip(COUNTS, shifts, strict=True)
    ]
    replies = [{"scaler/mean": part.mean(0), "scaler/std": part.std(0)} for part in parts]
    result = apply("pooled_moments", replies)
    reference = StandardScaler().fit(np.concatenate(parts))
    np.testing.assert_allclose(result.arrays["scaler/mean"], reference.mean_, rtol=1e-10)
    np.testing.assert_allclose(result.arrays["scaler/std"], reference.scale_, rtol=1e-10)
    assert result.arrays["scaler/std"][2:4].tolist() == [1.0, 1.0]
    assert result.metrics == {"constant": 2.0}


def test_pooled_moments_count_the_shift_between_sites() -> None:
    replies = [{"scaler/mean": np.array([m]), "scaler/std": np.zeros(1)} for m in (-1.0, 1.0)]
    result = apply("pooled_moments", replies, counts=(5.0, 5.0))
    assert result.arrays["scaler/std"] == pytest.approx([1.0])


def subspaces(count: int = 3) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"subspace": rng.standard_normal((8, 3))} for _ in range(count)]


def weighted(replies: list[dict[str, np.ndarray]], name: str = "subspace") -> np.ndarray:
    return sum(n / 100.0 * r[name] for n, r in zip(COUNTS, replies, strict=True))  # type: ignore[return-value]


def test_consensus_is_the_polar_factor_of_the_mean_or_the_mean() -> None:
    replies, current = subspaces(), subspaces(4)[3]
    left, _, right = np.linalg.svd(weighted(replies), full_matrices=False)
    result = apply("consensus", replies, current)
    np.testing.assert_allclose(result.arrays["subspace"], left @ right, atol=1e-13)
    shift = np.linalg.norm(left @ right - current["subspace"]) / np.sqrt(3)
    assert result.metrics == pytest.approx({"shift": shift, "heard": 3.0})
    flat = apply("consensus", replies, current, params={"manifold": "euclidean", "penalty": 2.0})
    np.testing.assert_allclose(flat.arrays["subspace"], weighted(replies), atol=1e-13)
    assert flat.metrics["dual_residual"] == pytest.approx(2.0 * flat.metrics["shift"])
    with pytest.raises(ConfigError, match="did you mean 'grassmann'"):
        apply("consensus", replies, params={"manifold": "grasman"})


def test_consensus_table_averages_the_last_message_of_every_site_heard() -> None:
    replies = subspaces(4)
    state: dict[str, np.ndarray] = {}
    params: dict[str, Scalar] = {"table": True, "manifold": "euclidean"}
    apply("consensus", replies[:2], counts=(10.0, 90.0), sites=(0, 4), params=params, state=state)
    kept = dict(state)
    result = apply(
        "consensus", replies[2:], counts=(30.0, 60.0), sites=(1, 4), params=params, state=state
    )
    expected = (
        0.1 * replies[0]["subspace"] + 0.3 * replies[2]["subspace"] + 0.6 * replies[3]["subspace"]
    )
    np.testing.assert_allclose(result.arrays["subspace"], expected, atol=1e-13)
    assert result.metrics["heard"] == 3.0
    assert kept["counts"].tolist() == [10.0, 0.0, 0.0, 0.0, 90.0], "state is replaced, not changed"


def test_orthonormal_is_the_sign_fixed_q_of_the_mean() -> None:
    replies = subspaces()
    q, r = np.linalg.qr(weighted(replies))
    result = apply("orthonormal", replies)
    np.testing.assert_allclose(result.arrays["subspace"], q * np.sign(np.diagonal(r)), atol=1e-13)


def test_top_eigenspace_solves_the_averaged_covariance() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((20, 8)) for _ in COUNTS]
    replies = [{"covariance": p.T @ p / 20, "subspace": np.zeros((8, 3))} for p in parts]
    result = apply("top_eigenspace", replies)
    expected = weighted(replies, "covariance")
    np.testing.assert_allclose(result.arrays["covariance"], expected, atol=1e-13)
    values, vectors = np.linalg.eigh(expected)
    found, best = torch.tensor(result.arrays["subspace"]), torch.tensor(vectors[:, -3:].copy())
    assert manifold.subspace_distance(found, best) < 1e-7
    assert result.metrics["explained"] == pytest.approx(values[-3:].sum() / values.sum())
    assert result.metrics["gap"] == pytest.approx((values[-3] - values[-4]) / values[-1])
    with pytest.raises(ConfigError, match="put both in one block"):
        apply("top_eigenspace", [{"covariance": r["covariance"]} for r in replies])


def test_quantile_reads_the_summed_histograms() -> None:
    rng = np.random.default_rng(0)
    scores = [rng.exponential(size=100) for _ in range(2)]
    replies = [
        {"histogram": SCORE_BINS.count(s), "threshold": np.zeros(1)} for s in [*scores, np.zeros(0)]
    ]
    result = apply("quantile", replies, counts=(100.0, 100.0, 0.0), params={"quantile": 0.9})
    exact = np.quantile(np.concatenate(scores), 0.9, method="inverted_cdf")
    assert result.arrays["threshold"] == pytest.approx([exact], rel=SCORE_BINS.relative_error)
    assert result.metrics == {"held_out": 200.0}
    with pytest.raises(DataError, match="no site held out any rows"):
        apply("quantile", replies[2:], counts=(0.0,))
    with pytest.raises(ConfigError, match="put both in one block"):
        apply("quantile", [{"histogram": r["histogram"]} for r in replies])

"""What each kernel sends, against numpy; and one FedPG and FedPE step against its equation."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch
from pca_driver import Federation, Rows, make_rows, start

from fedalt import manifold
from fedalt.alternation.phase import Phase, View
from fedalt.anomaly import SiteRows, anomaly_scores
from fedalt.clients.kernels.base import Kernel, Order, SiteContext, Work
from fedalt.clients.kernels.statistics import covariance, curvature, moments, score_histogram
from fedalt.clients.kernels.subspace import euclidean, grassmann, power
from fedalt.errors import ConfigError, DataError
from fedalt.seeds import Seeds
from fedalt.sketch import SCORE_BINS
from fedalt.task import Task


def work(
    kernel: Kernel,
    federation: Federation,
    returns: tuple[str, ...],
    site: int = 3,
    state: dict[str, np.ndarray] | None = None,
    **phase: object,
) -> Work:
    order = Order(
        "run",
        1,
        Phase("test", kernel=kernel.__name__, **phase),  # type: ignore[arg-type]
        federation.arrays,
        returns,
    )
    held = {} if state is None else state
    return kernel(order, SiteContext(cast(Task, federation.task), site, held, Seeds(0)))


def local_covariance(federation: Federation, site: int = 3) -> np.ndarray:
    rows = federation.task.rows[site].train
    standard = (rows - federation.arrays["scaler/mean"]) / federation.arrays["scaler/std"]
    covariance_: np.ndarray = standard.T @ standard / len(rows)
    return covariance_


def test_moments(scaled: Federation) -> None:
    done = work(moments, scaled, ("scaler/mean", "scaler/std"))
    rows = scaled.task.rows[3].train
    np.testing.assert_allclose(done.arrays["scaler/mean"], rows.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(done.arrays["scaler/std"], rows.std(axis=0, ddof=0), rtol=1e-13)
    assert done.num_examples == len(rows)


def test_the_fitted_scaler_and_penalty(scaled: Federation) -> None:
    pooled = scaled.task.pooled()
    np.testing.assert_allclose(scaled.arrays["scaler/std"], pooled.std(axis=0), rtol=1e-10)
    values = [np.linalg.eigvalsh(local_covariance(scaled, i))[-1] for i in range(20)]
    assert scaled.arrays["penalty"] == pytest.approx([np.median(values)], rel=1e-10)


def test_covariance_and_its_summaries(scaled: Federation) -> None:
    exact = local_covariance(scaled)
    values, vectors = np.linalg.eigh(exact)
    leading = vectors[:, -6:]
    expected = {
        "exact": exact,
        "scaled": leading * values[-6:] @ leading.T,
        "projector": leading @ leading.T,
    }
    for summary, matrix in expected.items():
        done = work(
            covariance, scaled, ("covariance", "subspace"), params={"summary": summary}
        ).arrays
        np.testing.assert_allclose(done["covariance"], matrix, atol=1e-10)
        np.testing.assert_array_equal(done["subspace"], scaled.arrays["subspace"])
    with pytest.raises(ConfigError, match="did you mean 'exact'"):
        work(covariance, scaled, ("covariance",), params={"summary": "exakt"})


def test_power_sends_c_z(scaled: Federation) -> None:
    done = work(power, scaled, ("subspace",)).arrays["subspace"]
    np.testing.assert_allclose(
        done, local_covariance(scaled) @ scaled.arrays["subspace"], atol=1e-11
    )


def test_score_histogram_counts_the_held_out_rows(scaled: Federation) -> None:
    done = work(score_histogram, scaled, ("histogram", "threshold"))
    holdout = scaled.task.rows[3].holdout
    names = ("scaler/mean", "scaler/std", "subspace")
    scores = anomaly_scores(holdout, *(scaled.arrays[name] for name in names))
    np.testing.assert_array_equal(done.arrays["histogram"], SCORE_BINS.count(scores))
    assert done.num_examples == len(holdout) and done.metrics == {"alarm_rate": 1.0}


def test_a_site_without_held_out_rows_counts_nothing(scaled: Federation) -> None:
    rows = scaled.task.rows[0]
    bare = Rows([SiteRows(rows.train, rows.holdout[:0])], scaled.task.test, scaled.task.attack)
    federation = Federation(bare, scaled.arrays)
    done = work(score_histogram, federation, ("histogram", "threshold"), site=0)
    assert done.num_examples == 0 and not done.arrays["histogram"].any()


@pytest.mark.parametrize("align", [True, False])
def test_grassmann_follows_its_equation(scaled: Federation, align: bool) -> None:
    """Two rounds in numpy: the dual step, E projected gradient steps, the message."""
    c, rho, rng = local_covariance(scaled), 7.0, np.random.default_rng(0)
    centers = [np.linalg.qr(rng.standard_normal((34, 6)))[0] for _ in range(2)]
    eta = 0.5 / (2 * np.linalg.eigvalsh(c)[-1] + rho)
    u, y = centers[0], np.zeros((34, 6))
    state: dict[str, np.ndarray] = {}
    for z in centers:
        y = y + rho * (u - z)
        for _ in range(3):
            g = -2 * c @ u + y + rho * (u - z)
            q, r = np.linalg.qr(u - eta * (np.eye(34) - u @ u.T) @ g)
            u = q * np.sign(np.diagonal(r))
            if align:
                left, _, right = np.linalg.svd(u.T @ z)
                u = u @ left @ right
        federation = Federation(scaled.task, {**scaled.arrays, "subspace": z})
        params = {"penalty": rho, "step": 0.5, "align": align}
        done = work(grassmann, federation, ("subspace",), state=state, steps=3, params=params)
        np.testing.assert_allclose(done.arrays["subspace"], u + y / rho, atol=1e-10)
        assert done.metrics["primal"] == pytest.approx(np.linalg.norm(u - z) / np.sqrt(6))
        expected = np.trace(c) - np.trace(z.T @ c @ z)
        assert done.metrics["objective"] == pytest.approx(expected, rel=1e-10)
        assert done.steps == 3


def test_euclidean_follows_the_gradient_of_its_lagrangian(scaled: Federation) -> None:
    """One step from a point with active constraints, with the gradient by autograd."""
    c, rho, mu = torch.tensor(local_covariance(scaled)), 7.0, 3.0
    rng = np.random.default_rng(0)
    center, u, y = (torch.tensor(0.5 * rng.standard_normal((34, 6))) for _ in range(3))
    t = torch.tensor(rng.uniform(0.0, 1.0, (6, 6)))
    t = t + t.T
    state = {
        "consensus/subspace": u.numpy(),
        "consensus/dual": y.numpy(),
        "consensus/multiplier": t.numpy(),
    }
    y = y + rho * (u - center)
    t = (t + mu * (u.T @ u - torch.eye(6))).clamp(min=0.0)
    variable = u.clone().requires_grad_()
    shifted = (t + mu * (variable.T @ variable - torch.eye(6))).clamp(min=0.0)
    left = torch.eye(34) - variable @ variable.T
    f = torch.trace(left @ c @ left)
    lagrangian = f + (y * (variable - center)).sum() + rho / 2 * (variable - center).square().sum()
    lagrangian = lagrangian + (shifted.square().sum() - t.square().sum()) / (2 * mu)
    (gradient,) = torch.autograd.grad(lagrangian, variable)
    bound = 2 * float(torch.linalg.eigvalsh(c)[-1]) + rho + mu + 2 * float(t.norm())
    eta = 0.25 / bound
    expected = u - eta * gradient + y / rho
    federation = Federation(scaled.task, {**scaled.arrays, "subspace": center.numpy()})
    params = {"penalty": rho, "orthogonality": mu}
    done = work(euclidean, federation, ("subspace",), state=state, steps=1, params=params)
    np.testing.assert_allclose(done.arrays["subspace"], expected.numpy(), atol=1e-10)


def test_the_dual_term_is_the_frobenius_product() -> None:
    """The published code sums torch.inner(Y, U − Z), which is another number."""
    rng = np.random.default_rng(0)
    y, gap = (torch.tensor(rng.standard_normal((34, 6))) for _ in range(2))
    frobenius = float(torch.trace(y.T @ gap))
    assert float((y * gap).sum()) == pytest.approx(frobenius)
    assert float(torch.inner(y, gap).sum()) != pytest.approx(frobenius, rel=0.1)


def test_the_covariance_is_kept_until_its_source_changes(scaled: Federation) -> None:
    state: dict[str, np.ndarray] = {}
    work(curvature, scaled, ("penalty",), state=state)
    first = state["spread/covariance"]
    work(power, scaled, ("subspace",), state=state)
    assert state["spread/covariance"] is first
    other = {**scaled.arrays, "scaler/std": 2.0 * scaled.arrays["scaler/std"]}
    work(power, Federation(scaled.task, other), ("subspace",), state=state)
    np.testing.assert_allclose(state["spread/covariance"], first / 4.0)


def test_what_a_client_sends_is_not_what_it_keeps(scaled: Federation) -> None:
    state: dict[str, np.ndarray] = {}
    done = work(grassmann, scaled, ("subspace",), state=state, params={"dual": "off"})
    spread = work(covariance, scaled, ("covariance",), state=state)
    for sent in (done.arrays["subspace"], spread.arrays["covariance"]):
        assert not any(np.shares_memory(sent, kept) for kept in state.values())
        assert not any(np.shares_memory(sent, array) for array in scaled.arrays.values())


def test_errors_say_what_to_do(scaled: Federation) -> None:
    returns = ("subspace",)
    with pytest.raises(ConfigError, match=r"params.dual is 'of' \(did you mean 'off'"):
        work(grassmann, scaled, returns, params={"dual": "of"})
    with pytest.raises(ConfigError, match=r"penalty ρ is 0\.0"):
        work(grassmann, scaled, returns, params={"penalty": 0.0})
    with pytest.raises(ConfigError, match="train a block of just these"):
        work(grassmann, scaled, ("subspace", "threshold"))
    with pytest.raises(ConfigError, match=r"leave view\.fraction at 1"):
        work(grassmann, scaled, returns, view=View(0.5))
    with pytest.raises(ConfigError, match="site 3: phase 'test' diverged"):
        work(euclidean, scaled, returns, steps=200, params={"step": 1e6})
    lacking = {name: a for name, a in scaled.arrays.items() if name != "penalty"}
    with pytest.raises(ConfigError, match="needs the array 'penalty'"):
        work(grassmann, Federation(scaled.task, lacking), returns)
    state: dict[str, np.ndarray] = {}
    work(grassmann, scaled, returns, state=state)
    smaller = {**scaled.arrays, "subspace": scaled.arrays["subspace"][:, :4]}
    with pytest.raises(ConfigError, match="one run has one k"):
        work(grassmann, Federation(scaled.task, smaller), returns, state=state)


def test_unusable_rows_are_named() -> None:
    rows = make_rows(per_site=20).rows[0].train.copy()
    rows[2, 7] = np.nan
    task = Rows([SiteRows(rows, rows[:0]), SiteRows(rows[:0], rows[:0])], rows, np.zeros(0))
    federation = start(task)
    with pytest.raises(DataError, match=r"site 0: .*infinity: \[7\]"):
        work(curvature, federation, ("penalty",), site=0)
    with pytest.raises(DataError, match="site 1 has no training rows"):
        work(moments, federation, ("scaler/mean", "scaler/std"), site=1)


def test_dual_may_be_a_yaml_boolean(scaled: Federation) -> None:
    states: list[dict[str, np.ndarray]] = [{}, {}]
    other = {**scaled.arrays, "subspace": manifold.random_subspace(34, 6, Seeds(9).torch()).numpy()}
    for state, dual in zip(states, (False, "off"), strict=True):
        for federation in (scaled, Federation(scaled.task, other)):
            work(grassmann, federation, ("subspace",), state=state, params={"dual": dual})
        assert not state["consensus/dual"].any()


def test_the_multiplier_of_orthogonality_shrinks_where_it_holds(scaled: Federation) -> None:
    """A multiplier that could only grow would push long runs apart."""
    small = 0.1 * np.linalg.qr(np.random.default_rng(0).standard_normal((34, 6)))[0]
    state = {
        "consensus/subspace": small,
        "consensus/dual": np.zeros((34, 6)),
        "consensus/multiplier": np.full((6, 6), 2.0),
    }
    params = {"penalty": 7.0, "orthogonality": 1.0}
    work(euclidean, scaled, ("subspace",), state=state, steps=1, params=params)
    kept = state["consensus/multiplier"]
    np.testing.assert_allclose(np.diag(kept), 2.0 - 0.99, atol=1e-12)
    assert (kept >= 0.0).all()

"""The matrix functions against numpy's linear algebra."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedalt import manifold
from fedalt.errors import ConfigError, FedaltError
from fedalt.seeds import Seeds


def matrix(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, columns)))


@pytest.mark.parametrize("shape", [(34, 6), (5, 5), (7, 1)])
@pytest.mark.parametrize("seed", range(3))
def test_qf_is_the_q_factor_with_a_positive_diagonal(shape: tuple[int, int], seed: int) -> None:
    given = matrix(*shape, seed)
    q, r = np.linalg.qr(given.numpy())
    expected = q * np.sign(np.diagonal(r))
    np.testing.assert_allclose(manifold.qf(given).numpy(), expected, atol=1e-13)


def test_qf_takes_the_sign_of_zero_as_one() -> None:
    given = torch.zeros(4, 2, dtype=torch.float64)
    given[0, 0] = 1.0
    basis = manifold.qf(given)
    torch.testing.assert_close(basis.T @ basis, torch.eye(2, dtype=torch.float64))


def test_qf_is_continuous_where_plain_qr_flips_columns() -> None:
    basis = manifold.qf(matrix(34, 6))
    step = 1e-6 * matrix(34, 6, seed=1)
    moved = manifold.qf(basis + step)
    assert float((moved - basis).norm()) < 10 * float(step.norm())
    plain = torch.linalg.qr(basis + step)[0]
    assert float((plain - basis).norm()) > 1.0, "the pitfall that the sign fix is for"


def test_polar_is_the_nearest_orthonormal_matrix() -> None:
    given = matrix(34, 6)
    left, _, right = np.linalg.svd(given.numpy(), full_matrices=False)
    np.testing.assert_allclose(manifold.polar(given).numpy(), left @ right, atol=1e-13)
    assert float((given - manifold.polar(given)).norm()) < float(
        (given - manifold.qf(given)).norm()
    )


def test_align_turns_the_basis_and_not_the_subspace() -> None:
    basis, reference = manifold.qf(matrix(34, 6)), manifold.qf(matrix(34, 6, seed=1))
    turned = manifold.align(basis, reference)
    torch.testing.assert_close(turned @ turned.T, basis @ basis.T)
    assert float((turned - reference).norm()) < float((basis - reference).norm())
    inner = turned.T @ reference
    torch.testing.assert_close(inner, inner.T)


def test_project_tangent_leaves_nothing_inside_the_subspace() -> None:
    basis, gradient = manifold.qf(matrix(34, 6)), matrix(34, 6, seed=1)
    tangent = manifold.project_tangent(basis, gradient)
    assert float((basis.T @ tangent).abs().max()) < 1e-13
    expected = (torch.eye(34, dtype=torch.float64) - basis @ basis.T) @ gradient
    torch.testing.assert_close(tangent, expected)


def test_subspace_distance() -> None:
    eye = torch.eye(6, dtype=torch.float64)
    assert manifold.subspace_distance(eye[:, :3], eye[:, 3:]) == 1.0
    basis = manifold.qf(matrix(34, 6))
    assert manifold.subspace_distance(basis, basis @ manifold.qf(matrix(6, 6))) < 1e-7


@pytest.mark.parametrize("orthonormal", [True, False])
def test_residual_is_the_mean_squared_residual_of_the_rows(orthonormal: bool) -> None:
    rows, basis = matrix(100, 34), 0.3 * matrix(34, 6, seed=1)
    basis = manifold.qf(basis) if orthonormal else basis
    expected = float((rows - rows @ basis @ basis.T).square().sum() / 100)
    assert manifold.residual(rows.T @ rows / 100, basis) == pytest.approx(expected, rel=1e-12)


def test_top_eigenspace_is_eigh_with_fixed_signs() -> None:
    rows = matrix(100, 34)
    covariance = rows.T @ rows / 100
    basis = manifold.top_eigenspace(covariance, 6)
    values, vectors = np.linalg.eigh(covariance.numpy())
    overlap = np.abs(np.diagonal(vectors[:, ::-1][:, :6].T @ basis.numpy()))
    np.testing.assert_allclose(overlap, 1.0, atol=1e-12)
    image = (basis.T @ covariance @ basis).diagonal().numpy()
    np.testing.assert_allclose(image, values[::-1][:6], rtol=1e-12)
    assert bool((basis.gather(0, basis.abs().argmax(dim=0, keepdim=True)) > 0).all())


def test_random_subspace_depends_on_the_generator_only() -> None:
    one = manifold.random_subspace(34, 6, Seeds(3).torch())
    assert torch.equal(one, manifold.random_subspace(34, 6, Seeds(3).torch()))
    assert not torch.equal(one, manifold.random_subspace(34, 6, Seeds(4).torch()))
    torch.testing.assert_close(one.T @ one, torch.eye(6, dtype=torch.float64))


def test_impossible_input_is_refused_with_its_shape() -> None:
    broken = matrix(5, 2)
    broken[1, 1] = float("nan")
    for function in (manifold.qf, manifold.polar):
        with pytest.raises(ConfigError, match=r"\(2, 5\)"):
            function(matrix(2, 5))
        with pytest.raises(FedaltError, match="NaN or infinity"):
            function(broken)
    with pytest.raises(ConfigError, match="between 1 and 34"):
        manifold.random_subspace(34, 35, Seeds(0).torch())
    with pytest.raises(ConfigError, match="between 1 and 5"):
        manifold.top_eigenspace(matrix(5, 5), 0)

"""A synthetic anomaly set on which a right subspace is told from a wrong one.

On NSL-KDD the plain norm of a record separates attacks as well as any subspace does; here it
does not, because six strong factors carry nearly all variance and an attack hides in the
remaining directions. A latent regime makes sites unlike: it drives one heavy-tailed column
(sort on it to deal out non-IID sites) and shifts two of the factors.

    regime ~ N(0, 1)                         factors_j = σ_j (N(0, 1) + shift_j · regime)
    x_0    = exp(tail · regime + N(0, 0.2))  x_rest    = L · factors + N(0, 0.5)
    attack: x_rest += |N(6, 2)| · direction, one of four fixed random unit vectors
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedalt.data.anomaly import NORMAL, AnomalySet
from fedalt.errors import DataError

HEAVY_TAILED = "heavy"
"""The feature to sort sites on."""


@dataclass(frozen=True)
class Shape:
    """What the synthetic set looks like; the defaults are those its claims were made on."""

    features: int = 34
    factors: int = 6
    families: int = 4
    strongest: float = 3.0
    weakest: float = 1.0
    noise: float = 0.5
    regime_tail: float = 0.75
    regime_shift: float = 1.1
    shifted_factors: int = 2
    attack_mean: float = 6.0
    attack_spread: float = 2.0


@dataclass(frozen=True)
class World:
    """One draw of what all rows share: loadings (d−1, k) and attack directions (4, d−1)."""

    shape: Shape
    loadings: np.ndarray
    directions: np.ndarray

    @classmethod
    def draw(cls, shape: Shape, rng: np.random.Generator) -> World:
        """Draw orthogonal loadings and unit attack directions."""
        rest = shape.features - 1
        basis, _ = np.linalg.qr(rng.standard_normal((rest, shape.factors)))
        # Columns of length √(d−1), so that each factor adds about σ² to every column.
        sigma = np.linspace(shape.strongest, shape.weakest, shape.factors)
        directions = rng.standard_normal((shape.families, rest))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        return cls(shape, basis * np.sqrt(rest) * sigma, directions)

    def normals(self, rows: int, rng: np.random.Generator) -> np.ndarray:
        """Draw normal records (rows, d); column 0 is the heavy-tailed one."""
        shape = self.shape
        regime = rng.standard_normal(rows)
        factors = rng.standard_normal((rows, shape.factors))
        factors[:, : shape.shifted_factors] += shape.regime_shift * regime[:, None]
        rest = factors @ self.loadings.T
        rest += shape.noise * rng.standard_normal(rest.shape)
        heavy = np.exp(shape.regime_tail * regime + 0.2 * rng.standard_normal(rows))
        return np.column_stack([heavy, rest])

    def attack(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Turn the records ``x`` into attacks in place; return each one's family number."""
        shape = self.shape
        family = rng.integers(shape.families, size=len(x))
        size = np.abs(rng.normal(shape.attack_mean, shape.attack_spread, len(x)))
        x[:, 1:] += size[:, None] * self.directions[family]
        return family


def synthetic_anomalies(
    rng: np.random.Generator,
    *,
    n_train: int = 20_000,
    n_test: int = 6_000,
    attack_fraction: float = 0.3,
    shape: Shape | None = None,
) -> AnomalySet:
    """Draw the synthetic set; attacks are of families ``attack-0`` … ``attack-3``.

    Standardise over all sites before learning. Raises :class:`DataError` for sizes that
    leave a split empty.
    """
    attacks = round(n_test * attack_fraction)
    if n_train < 1 or not 0 < attacks < n_test:
        raise DataError(
            f"synthetic set: n_train = {n_train}, n_test = {n_test} and attack_fraction = "
            f"{attack_fraction} leave no training rows, no attacks or no normals; enlarge them"
        )
    shape = shape or Shape()
    world = World.draw(shape, rng)
    train, test = world.normals(n_train, rng), world.normals(n_test, rng)
    # Attacks stand at random rows, so that any leading part of the test set has both kinds.
    rows = np.sort(rng.choice(n_test, attacks, replace=False))
    records = test[rows]
    family = np.full(n_test, NORMAL, dtype="<U16")
    numbers = world.attack(records, rng)
    test[rows], family[rows] = records, [f"attack-{number}" for number in numbers]
    return AnomalySet(
        name="synthetic",
        features=(HEAVY_TAILED, *(f"x{i}" for i in range(1, shape.features))),
        train_x=train,
        test_x=test,
        test_attack=family != NORMAL,
        test_family=family,
        test_label=family.copy(),
        source="synthetic: six factors, one heavy-tailed column, four attack directions",
    )

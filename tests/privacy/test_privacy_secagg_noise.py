"""The integers of a secure sum: no wrapping, a bounded rounding, and the noise that is told."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from federations import LeastSquares
from scipy import stats
from secagg_rounds import Wire, lose, phase_of, secure

from fedalt.alternation.privacy_spec import PrivacySpec
from fedalt.errors import ConfigError
from fedalt.privacy.clipping import bounded_groups, l2_norm
from fedalt.privacy.noise import noise_generator
from fedalt.secagg.lattice import Lattice, effective_multiplier, lattice_of
from fedalt.secagg.messages import MASK
from fedalt.seeds import Seeds


def lattice(sites: int = 10, size: int = 1000, **spec: Any) -> Lattice:
    found = PrivacySpec(trust="distributed", **spec)
    groups = bounded_groups(found, ["w"], {"a": ["w"]})
    return lattice_of(found, groups, {"w": (size,)}, sites)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("clip", [1e-6, 1.0, 37.0, 1e6])
@pytest.mark.parametrize("noise", [0.3, 4.0])
def test_no_sum_wraps_around_and_noise_is_fine_grained(
    bits: int, clip: float, noise: float
) -> None:
    sites, size = (10, 1000) if bits == 32 else (100, 10**10)
    found = lattice(sites, size, clip=clip, noise=noise)
    (part,) = found.parts
    assert found.bits == bits
    most = clip * part.scale + 8 * part.deviation * part.scale + 1
    assert sites * most < 2.0 ** (bits - 1)
    assert part.deviation * part.scale >= 4.0 and math.log2(part.scale).is_integer()
    assert clip < part.sensitivity <= clip * 1.001
    assert part.sensitivity == clip + math.sqrt(size) / (2 * part.scale)


def test_values_at_the_bound_come_back_whole() -> None:
    found = lattice(10, 4, clip=2.0, noise=1e-5)
    quiet = np.random.Generator(np.random.PCG64(1))
    for sign in (1.0, -1.0):
        vectors = [found.encode({"w": np.array([sign * 2.0, 0, 0, 0])}, quiet) for _ in range(10)]
        total = found.decode(np.add.reduce(vectors).astype(found.dtype))["w"]
        assert total[0] == pytest.approx(sign * 20.0, abs=1e-3)


@pytest.mark.parametrize("noise", [1e-15, 1e15])
def test_what_fits_no_modulus_is_refused(noise: float) -> None:
    with pytest.raises(ConfigError, match=r"fits no modulus up to 2\^64"):
        lattice(10, 10**6, noise=noise)


def test_rounding_is_bounded_as_stated() -> None:
    rng = np.random.default_rng(2)
    found = lattice(100, 5000, clip=1.0, noise=4.0)
    (part,) = found.parts

    class Silent:
        def normal(self, mean: float, std: float, size: int) -> np.ndarray:
            return np.zeros(size)

    for _ in range(20):
        values = rng.standard_normal(5000)
        values /= l2_norm([values])
        back = found.decode(found.encode({"w": values}, Silent()))["w"]  # type: ignore[arg-type]
        assert np.abs(back - values).max() <= 0.5 / part.scale
        assert l2_norm([back]) <= part.sensitivity


@pytest.mark.parametrize("survivors", [6, 10])
def test_measured_noise_is_what_the_sum_tells(survivors: int) -> None:
    """Sums of r shares over 40 000 numbers: the χ² of their variance, and their normality."""
    found = lattice(10, 40_000, clip=0.7, noise=1.5, dropouts=0.4, rng="os")
    zero = {"w": np.zeros(40_000)}
    vectors = [found.encode(zero, noise_generator("os", Seeds(0))) for _ in range(survivors)]
    total = found.decode(np.add.reduce(vectors).astype(found.dtype))["w"]
    told = found.noise(survivors)
    assert told.multiplier == pytest.approx(1.5 * math.sqrt(survivors / 6))
    assert told.std == told.multiplier * told.sensitivity
    # Once in 10⁹ runs by chance.
    low, high = stats.chi2.ppf([5e-10, 1 - 5e-10], 40_000)
    assert low <= float(np.square(total / told.std).sum()) <= high
    assert stats.kstest(total / told.std, "norm").pvalue > 1e-9


def test_a_quarter_of_the_noise_would_be_noticed() -> None:
    found = lattice(10, 40_000, clip=0.7, noise=1.5 / 4, rng="os")
    vector = found.encode({"w": np.zeros(40_000)}, noise_generator("os", Seeds(0)))
    claimed = 1.5 * 0.7 / math.sqrt(10)
    square = float(np.square(found.decode(vector)["w"] / claimed).sum())
    assert square < stats.chi2.ppf(5e-10, 40_000)


def test_lost_sites_take_their_share_of_noise_with_them() -> None:
    assert effective_multiplier(4.0, 70, 100) == pytest.approx(3.347, abs=5e-4)
    found = lattice(100, noise=4.0, dropouts=0.3)
    assert found.threshold == 70
    assert found.noise(70).multiplier == 4.0
    assert found.noise(100).multiplier == pytest.approx(4.0 * math.sqrt(100 / 70))


def test_blocks_have_grids_of_their_own_and_one_joint_multiplier() -> None:
    spec = PrivacySpec(trust="distributed", clips={"a": 3.0, "b": 0.01}, noise=2.0)
    groups = bounded_groups(spec, ["v", "w"], {"a": ["v"], "b": ["w"]})
    found = lattice_of(spec, groups, {"v": (10, 2), "w": (5,)}, 9)
    first, second = found.parts
    assert first.scale < second.scale
    for part in found.parts:
        assert part.deviation == pytest.approx(2.0 * part.sensitivity / 3.0)
    told = found.noise(9)
    assert told.multiplier == pytest.approx(2.0 / math.sqrt(2))
    joint = math.sqrt(sum((p.sensitivity / (3.0 * p.deviation)) ** 2 for p in found.parts))
    assert told.multiplier == pytest.approx(1.0 / joint)


def test_a_round_tells_the_noise_of_those_who_are_in_it() -> None:
    task, phase = LeastSquares(6), phase_of(dropouts=0.4, noise=2.0, clip=0.5)
    for lost, left in (([], 6), ([1], 5), ([1, 3], 4)):
        found = secure(task, Wire(task, lose({MASK: lost})), phase)
        assert found.noise_multiplier == pytest.approx(2.0 * math.sqrt(left / 4))
        assert found.sensitivity == pytest.approx(0.5, rel=1e-3) and found.sensitivity > 0.5
        assert found.noise_std == pytest.approx(found.noise_multiplier * found.sensitivity)


def test_measured_noise_of_whole_rounds_is_what_they_tell() -> None:
    """Forty rounds with noise from the operating system, less the sum without: χ² of 160."""
    task = LeastSquares(3)
    quiet = secure(task, Wire(task), phase_of(noise=1e-7)).total
    phase, square = phase_of(noise=2.0, rng="os"), 0.0
    for _ in range(40):
        found = secure(task, Wire(task), phase)
        square += sum(
            float(np.square((found.total[name] - values) / found.noise_std).sum())
            for name, values in quiet.items()
        )
    low, high = stats.chi2.ppf([5e-10, 1 - 5e-10], 160)
    assert low <= square <= high

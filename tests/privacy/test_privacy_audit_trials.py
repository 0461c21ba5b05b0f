"""Noise at a quarter of the claim is caught by the audit, a correct mechanism is not.

The mechanism is written out in numpy (clip, sum, Gaussian noise), so that nothing of the
framework's own mechanism is trusted; canaries, scores and bounds are the audit's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dp_accounting as dp
import numpy as np
import pytest

from fedalt.alternation.block import Block
from fedalt.alternation.phase import Phase
from fedalt.alternation.privacy_spec import PrivacySpec
from fedalt.alternation.site import Selector, Site
from fedalt.audit.bounds import LowerBounds, lower_bounds
from fedalt.audit.client_canaries import ClientCanaries
from fedalt.errors import ConfigError
from fedalt.seeds import Seeds

CLAIM, DELTA, CLIP, CANARIES, SIZE = 2.0, 1e-5, 0.5, 1000, 8192


class Flat:
    """One site and a model of two arrays; nothing is learnt."""

    def __init__(self, size: int = SIZE) -> None:
        self.sites: Sequence[Site] = [Site(0, "only", 10, {"modality": "ct"})]
        self.blocks: Sequence[Block] = []
        self._size = size

    def initial_arrays(self, seeds: Seeds) -> dict[str, np.ndarray]:
        return {
            "weight": np.zeros(self._size - 64, np.float32),
            "bias": np.zeros(64, np.float32),
            "steps": np.zeros(1, np.int64),
        }

    def site_data(self, site: int) -> Any:
        return None

    def evaluate(self, arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
        return {}


def one_round(
    canaries: ClientCanaries, phase: Phase, noise: float, rng: np.random.Generator
) -> None:
    """Clip every canary's update, sum them up, add noise of ``noise`` clips, and publish."""
    model = canaries.initial_arrays(Seeds(0))
    names = [name for name, v in model.items() if v.dtype.kind == "f"]
    total = np.zeros(sum(model[name].size for name in names))
    first = len(canaries.sites) - len(canaries.present)
    for site in canaries.sites[first:]:
        answer = canaries.canary_answer(phase, site.index, model)
        assert (answer["steps"] == model["steps"]).all()
        update = np.concatenate([(answer[n] - model[n]).ravel() for n in names])
        length = np.linalg.norm(update)
        assert length == 0.0 or length > 5 * CLIP
        total += update * min(1.0, CLIP / max(length, 1e-12))
    total += noise * CLIP * rng.standard_normal(len(total))
    at, after = 0, dict(model)
    for name in names:
        size = model[name].size
        after[name] = (total[at : at + size] / 1000).astype(np.float32).reshape(model[name].shape)
        at += size
    canaries.ordered(phase, list(model))
    canaries.evaluate(after)


def trial(seed: int, share: float) -> LowerBounds:
    """Audit a mechanism that adds ``share`` of the noise that its claim asks for."""
    noise = dp.get_sigma_gaussian(CLAIM, DELTA)
    phase = Phase("train", privacy=PrivacySpec(clip=CLIP, noise=noise))
    canaries = ClientCanaries(Flat(), CANARIES, Seeds(seed))
    one_round(canaries, phase, share * noise, np.random.default_rng([seed, 1]))
    scores, present = canaries.scores(), canaries.present
    return lower_bounds(scores[present], scores[~present], DELTA, rng=seed)


@pytest.mark.parametrize(
    "trials", [range(6), pytest.param(range(6, 66), marks=pytest.mark.slow)], ids=["6", "60"]
)
def test_a_quarter_of_the_noise_is_caught_and_a_correct_mechanism_is_not(trials: range):
    correct = [trial(seed, 1.0).largest for seed in trials]
    assert max(correct) <= CLAIM
    quarter = [trial(seed, 0.25).largest for seed in trials]
    assert min(quarter) > CLAIM


def test_a_canary_that_is_out_leaves_the_model_alone_or_pulls_the_other_way():
    phase = Phase("train", privacy=PrivacySpec(clip=CLIP))
    for opposite in (False, True):
        canaries = ClientCanaries(Flat(200), 10, Seeds(4), opposite)
        model = canaries.initial_arrays(Seeds(0))
        for canary, present in enumerate(canaries.present):
            change = canaries.canary_answer(phase, 1 + canary, model)["weight"]
            if present:
                assert abs(np.abs(change) - 10 * CLIP).max() < 1e-5
            else:
                assert np.abs(change).max() == (10 * CLIP if opposite else 0.0)
        assert 0 < canaries.present.sum() < 10


def test_scores_count_only_phases_that_could_reach_a_canary():
    """Changes of another modality's phase say nothing of a canary, and add no noise to it."""
    spec = PrivacySpec(clip=CLIP)
    task = Flat(200)
    task.sites = [Site(0, "a", 5, {"modality": "ct"}), Site(1, "b", 5, {"modality": "mr"})]
    seen = []
    for loud in (0.0, 1e3):
        canaries = ClientCanaries(task, 40, Seeds(4))
        model = canaries.initial_arrays(Seeds(0))
        rng = np.random.default_rng(2)
        for number, kind in enumerate(("ct", "mr")):
            select = Selector(where={"modality": (kind,)})
            canaries.ordered(Phase(kind, privacy=spec, clients=select), ["weight"])
            step = rng.standard_normal(136) * (loud if number else 1.0)
            model = {**model, "weight": model["weight"] + step.astype(np.float32)}
            canaries.evaluate(model)
        ct = [s.attributes["modality"] == "ct" for s in canaries.sites[2:]]
        seen.append(canaries.scores()[ct])
    assert np.allclose(seen[0], seen[1], rtol=1e-4, atol=1e-4)


def test_phases_that_protect_nobody_are_no_evidence():
    canaries = ClientCanaries(Flat(200), 10, Seeds(4))
    model = canaries.initial_arrays(Seeds(0))
    canaries.ordered(Phase("open"), ["weight"])
    canaries.evaluate(model)
    answer = canaries.canary_answer(Phase("open"), 1, model)
    assert all((answer[name] == model[name]).all() for name in model)
    with pytest.raises(ConfigError, match="protects clients"):
        canaries.scores()

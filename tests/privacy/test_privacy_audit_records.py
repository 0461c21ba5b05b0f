"""Canaries among a site's rows, under the kernel's DP-SGD and one that is written out here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from federations import settings
from torch import nn
from torch.func import functional_call, grad, vmap

from fedalt.alternation.block import Block, BlockMap
from fedalt.alternation.phase import Phase
from fedalt.alternation.privacy_spec import PrivacySpec
from fedalt.alternation.site import Site
from fedalt.audit.audit import audit
from fedalt.audit.bounds import lower_bounds
from fedalt.audit.f_dp import mu_of
from fedalt.audit.mislabelled import Mislabelled, can_mislabel
from fedalt.audit.record_canaries import RecordCanaries
from fedalt.clients.kernels.dpsgd import Mechanism
from fedalt.errors import ConfigError
from fedalt.runs.folder import RunFolder
from fedalt.seeds import Seeds

CLIP, ROWS = 0.5, 80
RECORDS = Phase("train", privacy=PrivacySpec(unit="record", clip=CLIP, noise=1.0), train=("head",))


class Blobs:
    """Three classes of points in the plane at two sites, and a linear model."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.labels = [rng.integers(0, 3, ROWS * (s + 1)) for s in range(2)]
        self.points = [
            rng.standard_normal((len(y), 2)) + np.stack([3 * (y == 1), 3 * (y == 2)], 1)
            for y in self.labels
        ]
        self.sites: Sequence[Site] = [Site(s, f"s{s}", ROWS * (s + 1), {}) for s in range(2)]
        self.blocks: Sequence[Block] = [Block("head", ("weight",)), Block("offset", ("bias",))]

    def model(self) -> nn.Module:
        return nn.Linear(2, 3)

    def initial_arrays(self, seeds: Seeds) -> dict[str, np.ndarray]:
        return {"weight": np.zeros((3, 2), np.float32), "bias": np.zeros(3, np.float32)}

    def site_data(self, site: int) -> tuple[torch.Tensor, ...]:
        points = torch.from_numpy(self.points[site].astype(np.float32))
        return points, torch.from_numpy(self.labels[site])

    def loss(
        self, model: nn.Module, batch: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
        x, y = batch
        return nn.functional.cross_entropy(model(x), y), {}

    def evaluate(self, arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
        assert set(arrays) == {"weight", "bias"}
        return {}


class Judge(nn.Module):
    """The task's loss as a module that holds the model."""

    def __init__(self, task: RecordCanaries) -> None:
        super().__init__()
        self.task, self.inner = task, task.model()

    def forward(self, *row: torch.Tensor) -> torch.Tensor:
        return self.task.loss(self.inner, tuple(part[None] for part in row))[0]


def row_gradients(
    task: RecordCanaries, arrays: Mapping[str, np.ndarray], site: int
) -> dict[str, np.ndarray]:
    """Return each row's gradient, by array, with rows in front."""
    judge = Judge(task)
    weights = {f"inner.{n}": torch.from_numpy(v.copy()) for n, v in arrays.items()}
    each = vmap(grad(lambda w, *row: functional_call(judge, w, row)), in_dims=(None, 0, 0, 0))
    found = each(weights, *task.site_data(site))
    return {name.removeprefix("inner."): values.numpy() for name, values in found.items()}


def test_a_canary_row_points_along_its_coordinate_and_real_rows_are_as_they_were():
    plain, task = Blobs(), RecordCanaries(Blobs(), 30, Seeds(1), [RECORDS])
    arrays = task.initial_arrays(Seeds(0))
    assert [s.size for s in task.sites] == [ROWS + 15, 2 * ROWS + 15]
    found = row_gradients(task, arrays, 0)
    (name,) = set(arrays) - {"weight", "bias"}
    in_here = task.present[::2]
    for row, present in enumerate(in_here, start=ROWS):
        assert not found["weight"][row].any() and not found["bias"][row].any()
        wanted = np.zeros(15)
        wanted[row - ROWS] = -100 * CLIP if present else 0.0
        assert np.array_equal(found[name][row], wanted)
    assert not found[name][:ROWS].any()
    x, y = plain.site_data(0)
    model = plain.model()
    model.load_state_dict({n: torch.from_numpy(arrays[n]) for n in ("weight", "bias")})
    plain.loss(model, (x, y))[0].backward()
    assert np.allclose(found["weight"][:ROWS].mean(0), model.weight.grad, atol=1e-6)
    assert 0 < in_here.sum() < 15


def test_the_model_gains_one_array_in_the_block_that_is_trained():
    task = RecordCanaries(Blobs(), 30, Seeds(1), [RECORDS])
    arrays = task.initial_arrays(Seeds(0))
    assert list(arrays) == list(task.model().state_dict())
    blocks = BlockMap.of(arrays, task.blocks)
    assert blocks.select(["head"]) == ("weight", "audit_canaries_0")
    assert blocks.select(["offset"]) == ("bias",)
    task.evaluate(arrays)


def dp_sgd(task: RecordCanaries, site: int, noise: float, rng: np.random.Generator) -> None:
    """Take ten full-batch steps of clipped, summed and noised gradients; tell the release."""
    received = task.initial_arrays(Seeds(0))
    arrays, trained = dict(received), ("weight", "audit_canaries_0")
    for _ in range(10):
        found = row_gradients(task, arrays, site)
        norms = np.sqrt(sum(np.square(found[n]).reshape(len(found[n]), -1).sum(1) for n in trained))
        factor = np.minimum(1.0, CLIP / np.maximum(norms, 1e-12))
        for name in trained:
            total = np.tensordot(factor, found[name], 1)
            total = total + noise * CLIP * rng.standard_normal(total.shape)
            arrays[name] = (arrays[name] - 0.1 * total / 100).astype(np.float32)
    task.released(RECORDS, site, received, {name: arrays[name] for name in trained})


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_noise_of_a_quarter_of_the_claim_is_caught_among_rows_too(share: float):
    """Ten steps of Gaussian noise z compose into one of z/√10."""
    claim, delta = 2.0, 1e-5
    noise = np.sqrt(10) / mu_of(claim, delta)
    for seed in range(4):
        task = RecordCanaries(Blobs(), 600, Seeds(seed), [RECORDS])
        for site in range(2):
            dp_sgd(task, site, share * noise, np.random.default_rng([seed, site]))
        scores, present = task.scores(), task.present
        bounds = lower_bounds(scores[present], scores[~present], delta, rng=seed)
        assert (bounds.largest > claim) == (share < 1.0)


def config() -> dict[str, Any]:
    """Return four rounds of five steps in which half of a site's rows are drawn: ε about 2."""
    spec = {"unit": "record", "clip": CLIP, "noise": 5.0, "sample_rate": 0.5, "rng": "seeded"}
    phase = {"kernel": "gradient", "train": ["head"], "steps": 5, "privacy": spec}
    made = settings(rounds=4, phases={"train": phase})
    made["privacy"] |= {"delta": 1e-5}
    return made


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_a_twin_with_canaries_among_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
):
    """The ledger's claim is the schedule's, whatever noise there was; the audit sees the noise."""
    drawn = Mechanism.noise
    monkeypatch.setattr(Mechanism, "noise", lambda *of: share * drawn(*of))
    found = audit(config(), tmp_path / "twin", 800, 2, tasks=lambda spec: Blobs())  # type: ignore[arg-type]
    assert found.unit == "record" and 1.0 < found.claim < 4.0
    assert found.exceeded == (share < 1.0)
    assert found.membership.of == "mislabelled records"
    kept = RunFolder(tmp_path / "twin").config()
    assert kept["phases"]["train"]["privacy"]["per_sample"] == "functorch"


def test_what_no_canary_can_join_is_refused():
    for phase, words in (
        (Phase("free"), "cannot be audited"),
        (Phase("other", kernel="covariance", privacy=RECORDS.privacy), "cannot be audited"),
        (Phase("own", privacy=RECORDS.privacy, aggregate={"all": "local"}), "stay at the site"),
    ):
        with pytest.raises(ConfigError, match=words):
            RecordCanaries(Blobs(), 30, Seeds(1), [phase])
    with pytest.raises(ConfigError, match="at least 2"):
        RecordCanaries(Blobs(), 1, Seeds(1), [RECORDS])


def test_mislabelled_records_are_never_labelled_right_and_a_model_that_learnt_them_tells():
    plain = Blobs()
    task = Mislabelled(plain, 1000, Seeds(3))
    # A tenth of all rows at most.
    assert len(task.present) == 24
    for site, own in enumerate(plain.sites):
        x, y = task.site_data(site)
        assert len(x) == len(y) == task.sites[site].size
        for point, label in zip(x[own.size :], y[own.size :], strict=True):
            same = (torch.from_numpy(plain.points[site].astype(np.float32)) == point).all(1)
            assert same.any() and label not in torch.from_numpy(plain.labels[site])[same]
    before = plain.initial_arrays(Seeds(0))
    assert np.allclose(task.scores(before, before), 0.0)
    # A model of the right classes makes wrong labels less likely.
    weight = np.asarray([[-1, -1], [2, 0], [0, 2]], np.float32)
    after = {"weight": weight, "bias": np.asarray([2, -1, -1], np.float32)}
    assert (task.scores(before, after) < 0).mean() > 0.7


def test_only_tasks_with_whole_labels_have_records_to_mislabel():
    assert can_mislabel(Blobs(), [RECORDS])
    task = Blobs()
    task.site_data = lambda site: (torch.zeros(9, 2), torch.zeros(9))  # type: ignore[method-assign]
    assert not can_mislabel(task, [RECORDS])

"""Heart disease at four hospitals: each hospital is a site, each patient a record.

Janosi, Steinbrunn, Pfisterer and Detrano, Heart Disease, UCI Machine Learning Repository,
doi:10.24432/C52P4X (CC BY 4.0). A natural federation: hospitals differ in size, in the share of
patients with a disease, and in what they measure. Inputs are scaled and filled in by public
constants (``fedalt.data.heart_features``), so that nothing is learnt outside the account.

A model is ``score(x) = f(x) + offset`` and P(disease) = σ(score), where f is linear or has a
layer of tanh. The ``offset`` is a block of its own: a hospital may keep its own (rule ``local``),
since how common the disease is differs more between them than what it looks like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from fedalt.alternation.block import Block
from fedalt.alternation.site import Site
from fedalt.data.heart import load_heart
from fedalt.data.heart_features import ENCODED, encode
from fedalt.errors import ConfigError, nearest
from fedalt.scenarios.dp_hospitals.judgement import judge
from fedalt.seeds import Seeds
from fedalt.task import Arrays

MODELS = ("logistic", "mlp")
HIDDEN = 16
Rows = tuple[torch.Tensor, torch.Tensor]


class Hospitals:
    """Four hospitals, each with a share of its patients held out to judge models by.

    ``holdout`` is that share, drawn by ``seed`` within each hospital and diagnosis. Held-out
    records are in nobody's training data, so no privacy account covers them. Raises
    :class:`ConfigError`, and :class:`fedalt.errors.DataError` for the files.
    """

    def __init__(
        self,
        root: str | None = None,
        model: str = "logistic",
        holdout: float = 0.3,
        seed: int = 0,
    ) -> None:
        if model not in MODELS:
            raise ConfigError(f"task.model: unknown model '{model}'{nearest(model, MODELS)}")
        if not 0.0 < holdout < 1.0:
            raise ConfigError(f"task.holdout={holdout}: must lie between 0 and 1")
        self._model = model
        self._train, self._test = list[Rows](), list[Rows]()
        self.names = list[str]()
        for place, patients in enumerate(load_heart(root)):
            rng = Seeds(seed).at("holdout", place).numpy()
            x = torch.from_numpy(encode(patients.values))
            y = torch.from_numpy(patients.disease.astype(np.float32))
            out = held_out(patients.disease, holdout, rng)
            self.names.append(patients.hospital)
            self._train.append((x[~out], y[~out]))
            self._test.append((x[out], y[out]))

    @cached_property
    def sites(self) -> Sequence[Site]:
        """One site a hospital, which its attribute ``hospital`` names."""
        return [
            Site(i, name, len(rows[1]), {"hospital": name})
            for i, (name, rows) in enumerate(zip(self.names, self._train, strict=True))
        ]

    @property
    def blocks(self) -> Sequence[Block]:
        """``offset``, ``head`` (what is linear in its input) and, in the MLP, ``body``."""
        made = [Block("offset", ("offset/*",)), Block("head", ("head/*",))]
        return made if self._model == "logistic" else [*made, Block("body", ("body/*",))]

    def model(self) -> nn.Module:
        """Build the model; initial weights come from :meth:`initial_arrays`."""
        return Score(self._model)

    def initial_arrays(self, seeds: Seeds) -> dict[str, np.ndarray]:
        """Return zeros for what is linear; a body's weights are drawn from the run's generator."""
        rng = seeds.numpy()
        arrays = {}
        for name, value in self.model().state_dict().items():
            shape = tuple(value.shape)
            drawn = name.startswith("body") and len(shape) > 1
            scale = 1.0 / np.sqrt(shape[-1]) if drawn else 0.0
            arrays[name] = (scale * rng.standard_normal(shape)).astype(np.float32)
        return arrays

    def site_data(self, site: int) -> Rows:
        """Return a hospital's training records: (n, features) and whether each is ill (n,)."""
        return self._train[site]

    def held_out(self, site: int) -> Rows:
        """Return the records that a hospital's models are judged by, in the same form."""
        return self._test[site]

    def loss(
        self, model: nn.Module, batch: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
        """Return the mean cross-entropy, and the accuracy."""
        x, y = batch
        scores = model(x)
        right = ((scores.detach() > 0) == (y > 0.5)).float().mean()
        return functional.binary_cross_entropy_with_logits(scores, y), {"accuracy": right}

    def evaluate(self, arrays: Arrays) -> dict[str, float]:
        """Judge one model for all hospitals on the held-out records."""
        return self.judge([arrays] * len(self.names))

    @torch.no_grad()
    def judge(self, models: Sequence[Arrays]) -> dict[str, float]:
        """Judge a model a hospital on that hospital's held-out records: see ``judgement``."""
        scores: Mapping[str, tuple[np.ndarray, np.ndarray]] = {
            name: (self._scores(arrays, rows[0]), rows[1].numpy() > 0.5)
            for name, arrays, rows in zip(self.names, models, self._test, strict=True)
        }
        return judge(scores)

    def _scores(self, arrays: Arrays, x: torch.Tensor) -> np.ndarray:
        model = self.model().eval()
        model.load_state_dict({name: torch.tensor(values) for name, values in arrays.items()})
        found: np.ndarray = model(x).double().numpy()
        return found


class Score(nn.Module):
    """A patient's score, (n, features) to (n,); above 0 means a disease."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        width = len(ENCODED) if kind == "logistic" else HIDDEN
        self.body = (
            nn.Identity()
            if kind == "logistic"
            else nn.Sequential(nn.Linear(len(ENCODED), HIDDEN), nn.Tanh())
        )
        self.head = nn.Linear(width, 1, bias=False)
        # A layer whose one input is always 1: rows' gradients are had as of any other layer.
        self.offset = nn.Linear(1, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scores (n,)."""
        scores: torch.Tensor = self.head(self.body(x))
        offset: torch.Tensor = self.offset(torch.ones_like(scores))
        return (scores + offset).squeeze(1)


def held_out(disease: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Return which patients (n,) are held out: the share of the ill, and of the others."""
    out = np.zeros(len(disease), dtype=bool)
    for value in (False, True):
        rows = np.flatnonzero(disease == value)
        out[rng.permutation(rows)[: max(1, round(share * len(rows)))]] = True
    return out

"""Gradients that hide each record of a site: DP-SGD for one stage of a client's work.

Abadi et al. 2016 ("Deep learning with differential privacy", arXiv:1607.00133). Each step draws
every row i on its own with probability q, and releases

    g̃ = (Σᵢ ḡᵢ + N(0, (z·C)²·I)) / (q·n),      ḡᵢ = gᵢ · min(1, C/‖gᵢ‖)

for the gradients gᵢ of single rows over all trained parameters. q·n is a public constant, not the
number drawn, and a step that drew nothing releases noise alone. What follows (proximal pull,
momentum, Adam, weight decay) reads g̃ only, and costs nothing. A row whose gradient is not finite
contributes nothing.

To protect a user who has several rows, at most k of each user's rows stay (a secret choice, anew
in each stage); rows are then drawn and clipped one by one as before, so that a user moves a step
by as many times C as rows of it were drawn, which is binomial
(``fedalt.privacy.events.user_sampled``).

Who was drawn, and the noise, come from one generator for each stage (``fedalt.privacy.noise``):
first the choice of each user's rows, then all samples, then the noise step by step. With
``rng: seeded`` the same draws are made whatever computes the stage.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch

from fedalt.alternation.phase import Phase
from fedalt.alternation.privacy_spec import PrivacySpec
from fedalt.clients.kernels.base import SiteContext
from fedalt.clients.kernels.evaluate import Batch
from fedalt.clients.kernels.model import ReusedModel
from fedalt.clients.kernels.row_gradients import opened
from fedalt.clients.kernels.stages import Stage, spec_of
from fedalt.clients.kernels.steps import Gradient, Grads, Metrics
from fedalt.errors import DataError
from fedalt.privacy import site_account
from fedalt.privacy.noise import NAMES, noise_generator
from fedalt.privacy.sampling import RowSample, row_sample
from fedalt.wire.report import Applied


def seeded(phase: Phase) -> Phase:
    """Return the phase with draws that can be repeated: to compare, with results thrown away."""
    spec = phase.privacy
    again = spec if spec is None else replace(spec, rng="seeded")
    return replace(phase, privacy=again, inner=tuple(seeded(inner) for inner in phase.inner))


def tells_metrics(stages: Sequence[Stage]) -> bool:
    """Say whether what clients measure may leave: no private stage withholds it."""
    specs = [spec_of(stage.phase) for stage in stages]
    return all(spec is None or spec.metrics == "release" for spec in specs)


@dataclass(frozen=True)
class Mechanism:
    """A private stage: its spec, its public sample, the rows it may draw, its generator."""

    spec: PrivacySpec
    sample: RowSample
    rows: np.ndarray
    rng: np.random.Generator

    @property
    def noise_std(self) -> float:
        """The standard deviation of the noise on the sum of a step: z·C."""
        return self.spec.noise * self.spec.clip

    @property
    def applied(self) -> Applied:
        """What the site says that it did."""
        return Applied(
            unit=self.spec.unit,
            clip=self.spec.clip,
            noise_std=self.noise_std,
            noise_multiplier=self.spec.noise,
            sample_rate=self.sample.rate,
            steps=self.sample.steps,
            rng=NAMES[self.spec.rng],
        )

    def batches(self) -> list[np.ndarray]:
        """Draw all samples: the row numbers of each step, in order; a step may have none."""
        return [self._draw() for _ in range(self.sample.steps)]

    def _draw(self) -> np.ndarray:
        # As many as a coin for each row would give, and then which: the same distribution.
        count = int(self.rng.binomial(len(self.rows), self.sample.rate))
        places = self.rng.choice(len(self.rows), count, replace=False, shuffle=False)
        return self.rows[np.sort(places)]

    def noise(self, count: int, kind: torch.dtype) -> torch.Tensor:
        """Draw N(0, (z·C)²) for all of a step's coordinates at once: (count,) on the CPU."""
        exact = np.float64 if kind == torch.float64 else np.float32
        values = torch.from_numpy(self.rng.standard_normal(count, dtype=exact))
        return values.mul_(self.noise_std)


def begin_mechanism(stage: Stage, site: SiteContext) -> Mechanism | None:
    """Return a stage's mechanism, None for one without; its generator is used once.

    Raises :class:`DataError` for a task whose users are not one a row.
    """
    spec = spec_of(stage.phase)
    if spec is None:
        return None
    rng = noise_generator(spec.rng, stage.seeds)
    sample, rows = row_sample(stage.phase, len(stage.rows)), stage.rows
    if spec.unit == "user":
        rows = at_most(rows, _users_of(site, rows), spec.contributions, rng)
    return Mechanism(spec, sample, rows, rng)


def account_of(site: SiteContext, mechanisms: Sequence[Mechanism]) -> dict[str, np.ndarray]:
    """Return the entry of the site's state that adds what these have done to its own account."""
    if not mechanisms:
        return {}
    done = [(m.sample.rate, m.spec.noise, m.spec.contributions, m.sample.steps) for m in mechanisms]
    return {site_account.KEY: site_account.add(site.state.get(site_account.KEY), done)}


def at_most(
    rows: np.ndarray, users: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Return rows (m,), in order, of which no user has more than ``count``; chosen at random.

    ``users`` (n,) says whose each of ``rows`` (n,) is.
    """
    order = rng.permutation(len(rows))
    order = order[np.argsort(users[order], kind="stable")]
    _, begins, sizes = np.unique(users[order], return_index=True, return_counts=True)
    places = np.arange(len(rows)) - np.repeat(begins, sizes)
    return rows[np.sort(order[places < count])]


def _users_of(site: SiteContext, rows: np.ndarray) -> np.ndarray:
    users: np.ndarray = np.asarray(site.task.site_users(site.site))  # type: ignore[attr-defined]
    if users.ndim != 1 or len(users) <= rows.max():
        name = site.task.sites[site.site].name
        raise DataError(
            f"site '{name}': site_users returned an array of shape {users.shape}, but must name "
            "the user of each of its rows"
        )
    mine: np.ndarray = users[rows]
    return mine


def released(
    mechanism: Mechanism, params: Sequence[torch.Tensor], sums: Sequence[torch.Tensor] | None
) -> list[torch.Tensor]:
    """Return g̃ for each parameter, in its type; ``sums`` None stands for a step without rows."""
    kind = torch.float64 if any(p.dtype == torch.float64 for p in params) else torch.float32
    noise = mechanism.noise(sum(p.numel() for p in params), kind).to(params[0].device)
    parts = torch.split(noise, [p.numel() for p in params])
    noisy = [part.view(p.shape) for part, p in zip(parts, params, strict=True)]
    if sums is not None:
        torch._foreach_add_(noisy, list(sums))
    torch._foreach_div_(noisy, mechanism.sample.expected)
    return [g.to(p.dtype) for g, p in zip(noisy, params, strict=True)]


@contextmanager
def private_gradient(
    mechanism: Mechanism, way: str, model: ReusedModel, params: Sequence[torch.nn.Parameter]
) -> Iterator[Gradient]:
    """Lend the gradient of a stage's steps; the loss is NaN where a step drew no row."""
    with opened(way, model, params) as clipped_sum:

        def gradient(batch: Batch) -> tuple[float, Metrics, Grads]:
            if not len(batch[0]):
                return math.nan, {}, released(mechanism, params, None)
            found = clipped_sum(batch, mechanism.spec.clip)
            return found.loss, found.metrics, released(mechanism, params, found.sums)

        yield gradient

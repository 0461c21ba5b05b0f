"""Normal records of many sites; a common subspace tells attacks by their distance to it.

Nguyen et al., "Federated PCA on Grassmann Manifold for Anomaly Detection in IoT Networks",
INFOCOM 2023 (arXiv:2212.12121) and arXiv:2407.07421. Each site holds normal records only,
standardises them by the federation's pooled mean and deviation, and keeps a tenth of them
aside for the alarm threshold. The server judges on labelled records it alone holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch

from fedalt import manifold
from fedalt.alternation.block import Block
from fedalt.alternation.site import Site
from fedalt.anomaly import SiteRows, anomaly_scores, evaluate_scores, standardise
from fedalt.data import AnomalySet, load_nsl_kdd, load_shuttle, partition, synthetic_anomalies
from fedalt.data.folder import data_folder
from fedalt.errors import ConfigError, DataError, nearest
from fedalt.seeds import Seeds
from fedalt.sketch import SCORE_BINS
from fedalt.task import Arrays

DATA = ("auto", "nsl_kdd", "shuttle", "synthetic")
PARTITIONS = ("sorted", "dirichlet", "iid")
SORT_FEATURE = {"NSL-KDD": "dst_bytes", "Shuttle": "f1", "synthetic": "heavy"}
"""The feature that makes sites unlike; for NSL-KDD the one the authors sort by."""
AT_THRESHOLD = ("f1", "precision", "recall", "fpr")
"""The measures that need a threshold."""


class FederatedPCA:
    """Records of one anomaly set among ``clients`` sites, and a subspace of dimension ``rank``.

    ``partition`` is ``sorted`` (equal shards of records sorted by ``feature``), ``dirichlet``
    (ten bins of the feature shared out by Dirichlet(``alpha``)) or ``iid``. ``holdout`` is the
    share of a site's records kept aside for the threshold. ``rows`` keeps only so many
    training records, drawn at random. ``fallback`` says so where other data than the first
    choice is used.
    """

    judges_training_rows = True
    """Whether :meth:`evaluate` reads the records that sites learn from."""

    def __init__(
        self,
        data: str = "auto",
        root: str | None = None,
        clients: int = 20,
        partition: str = "sorted",
        feature: str | None = None,
        alpha: float = 0.3,
        rank: int = 10,
        holdout: float = 0.1,
        rows: int | None = None,
        seed: int = 0,
    ) -> None:
        if data not in DATA:
            raise ConfigError(f"task.data: unknown data set '{data}'{nearest(data, DATA)}")
        if not 0.0 <= holdout < 1.0:
            raise ConfigError(f"task.holdout={holdout}: must lie in [0, 1)")
        seeds = Seeds(seed)
        loaded, self.fallback = _load(data, root, seeds)
        self.records: AnomalySet = _keep(loaded, rows, seeds.at("rows").numpy())
        self.rank = rank
        manifold.check_subspace_size(self.dimension, rank)
        self.feature = feature or SORT_FEATURE[self.records.name]
        rng = seeds.at("partition").numpy()
        self.parts = split(partition, self.values, clients, alpha, rng)
        self._rows = [
            _hold_out(self.records.train_x[part], holdout, seeds.at("holdout", i).numpy())
            for i, part in enumerate(self.parts)
        ]
        _check_rank(self.records.name, rank, self.spectrum)

    @property
    def dimension(self) -> int:
        """The number of features d."""
        return len(self.records.features)

    @property
    def values(self) -> np.ndarray:
        """The values (n,) that sites differ by: of :attr:`feature`, of all training records."""
        return self.records.train_x[:, self.records.column(self.feature)]

    @cached_property
    def sites(self) -> Sequence[Site]:
        """One site a part; its size is what it learns from."""
        return [Site(i, f"site-{i}", len(rows.train)) for i, rows in enumerate(self._rows)]

    @property
    def blocks(self) -> Sequence[Block]:
        """What alternates: scaler, penalty, subspace, covariance summary, threshold sketch."""
        return [
            Block("scaler", ("scaler/*",)),
            Block("penalty", ("penalty",)),
            Block("subspace", ("subspace",)),
            Block("summary", ("covariance", "subspace")),
            Block("sketch", ("histogram", "threshold")),
        ]

    def initial_arrays(self, seeds: Seeds) -> dict[str, np.ndarray]:
        """Return Z⁰ = qf(Gaussian), an identity scaler, and zeros for what sites will tell."""
        d, k = self.dimension, self.rank
        return {
            "scaler/mean": np.zeros(d),
            "scaler/std": np.ones(d),
            "penalty": np.ones(1),
            "subspace": manifold.random_subspace(d, k, seeds.torch()).numpy(),
            "covariance": np.zeros((d, d)),
            "histogram": np.zeros(SCORE_BINS.size),
            "threshold": np.zeros(1),
        }

    def site_data(self, site: int) -> SiteRows:
        """Return one site's raw normal records."""
        return self._rows[site]

    def evaluate(self, arrays: Arrays) -> dict[str, float]:
        """Judge a model: residual ratio to central PCA, and detection on the labelled records.

        ``residual_ratio`` is the mean squared residual of all training records, under the
        exact scaler, over that of central PCA: 1 is optimal. F1, precision, recall and false
        positive rate are at the model's own threshold, and absent until a phase has set one.
        """
        ratio = self.residual(arrays["subspace"]) / self.central_residual
        scores = self.scores(arrays, self.records.test_x)
        threshold = float(arrays["threshold"][0])
        found = evaluate_scores(scores, self.records.test_attack, threshold)
        if threshold <= 0.0:
            found = {name: value for name, value in found.items() if name not in AT_THRESHOLD}
        return {"residual_ratio": ratio, **found}

    def scores(self, arrays: Arrays, rows: np.ndarray) -> np.ndarray:
        """Return the anomaly scores of raw rows under a model."""
        return anomaly_scores(rows, arrays["scaler/mean"], arrays["scaler/std"], arrays["subspace"])

    def residual(self, subspace: np.ndarray) -> float:
        """Return the pooled training residual of the span of a subspace (d, k)."""
        basis = manifold.qf(torch.tensor(subspace))
        return manifold.residual(torch.from_numpy(self.covariance), basis)

    @cached_property
    def scaler(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of all sites' training rows in one place; constant columns get 1."""
        rows = np.concatenate([rows.train for rows in self._rows])
        mean, std = rows.mean(axis=0), rows.std(axis=0)
        constant = std <= np.abs(mean) * len(rows) * np.finfo(np.float64).eps
        return mean, np.where(constant, 1.0, std)

    @cached_property
    def covariance(self) -> np.ndarray:
        """The standardised covariance (d, d) of all sites' training rows in one place."""
        rows = standardise(np.concatenate([rows.train for rows in self._rows]), *self.scaler)
        product: np.ndarray = rows.T @ rows / len(rows)
        return product

    @cached_property
    def central_subspace(self) -> np.ndarray:
        """Central PCA: the leading eigenvectors (d, k) of :attr:`covariance`."""
        central: np.ndarray = manifold.top_eigenspace(
            torch.from_numpy(self.covariance), self.rank
        ).numpy()
        return central

    @cached_property
    def central_residual(self) -> float:
        """The smallest residual any subspace of dimension k has; positive."""
        return self.residual(self.central_subspace)

    @cached_property
    def spectrum(self) -> np.ndarray:
        """The eigenvalues (d,) of :attr:`covariance`, largest first."""
        values: np.ndarray = np.linalg.eigvalsh(self.covariance)[::-1]
        return values

    @property
    def gap(self) -> float:
        """(λ_k − λ_{k+1})/λ_1: where it vanishes only the residual is determined."""
        return float((self.spectrum[self.rank - 1] - self.spectrum[self.rank]) / self.spectrum[0])


def split(
    name: str, values: np.ndarray, clients: int, alpha: float, rng: np.random.Generator
) -> list[np.ndarray]:
    """Split rows among clients by the values (n,) of one feature."""
    if name not in PARTITIONS:
        raise ConfigError(f"task.partition: unknown partition '{name}'{nearest(name, PARTITIONS)}")
    if name == "iid":
        return partition("iid", clients, rng, rows=len(values))
    if name == "sorted":
        return partition("sorted_by", clients, rng, values=values)
    edges = np.unique(np.quantile(values, np.linspace(0.1, 0.9, 9)))
    bins = np.searchsorted(edges, values, side="right")
    return partition("dirichlet", clients, rng, labels=bins, alpha=alpha, min_size=10)


def _load(data: str, root: str | None, seeds: Seeds) -> tuple[AnomalySet, str]:
    """Return the set, and a line that says so if it is not the first choice."""
    if data == "synthetic":
        return synthetic_anomalies(seeds.at("synthetic").numpy()), ""
    if data == "shuttle":
        return load_shuttle(seeds.at("shuttle").numpy()), ""
    if data == "nsl_kdd" or data_folder(root).named:
        return load_nsl_kdd(root), ""
    try:
        return load_nsl_kdd(root), ""
    except DataError:
        # Nobody named a folder and nothing lies in the cache: real data that is installed.
        why = "NSL-KDD was not found and no folder was named (FEDALT_DATA or task.root)"
        return load_shuttle(seeds.at("shuttle").numpy()), f"{why}: this is Shuttle instead"


def _keep(records: AnomalySet, rows: int | None, rng: np.random.Generator) -> AnomalySet:
    """Keep a random choice of the training records, in their order."""
    if rows is None:
        return records
    count = len(records.train_x)
    if not 1 <= rows <= count:
        raise ConfigError(f"task.rows={rows}: must be 1 to {count}")
    kept = np.sort(rng.choice(count, size=rows, replace=False))
    return replace(records, train_x=records.train_x[kept])


def _check_rank(name: str, rank: int, spectrum: np.ndarray) -> None:
    """Refuse a rank that leaves no residual to compare."""
    if spectrum[rank:].sum() <= 1e-9 * spectrum.sum():
        raise ConfigError(
            f"task.rank={rank}: {name} has no spread left beyond that many "
            "dimensions, so a residual ratio means nothing; choose a smaller rank"
        )


def _hold_out(rows: np.ndarray, share: float, rng: np.random.Generator) -> SiteRows:
    """Keep a random share of a site's rows aside; at least one row remains to learn from."""
    aside = min(round(share * len(rows)), len(rows) - 1)
    order = rng.permutation(len(rows))
    return SiteRows(train=rows[np.sort(order[aside:])], holdout=rows[np.sort(order[:aside])])

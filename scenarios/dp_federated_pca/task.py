"""The task of ``federated_pca`` in public units, judged on records that train nothing.

No account covers what a judgement tells of a record it looks at. So every site's ``holdout``
leaves training for good, and residuals are those of these records alone:

    ratio = tr((I − UUᵀ)C_h) / Σ_{j>k} λ_j(C_h),     C_h the covariance of the held-out records

A ratio of 1 is the best that any subspace can do for them, and PCA on all training records comes
close to it. Detection is judged, as there, on the labelled test records.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from fedalt.anomaly import SiteRows
from fedalt.errors import ConfigError
from fedalt.scenarios.dp_federated_pca.scales import scale_of
from fedalt.scenarios.federated_pca.task import FederatedPCA
from fedalt.task import Arrays


class PrivatePCA(FederatedPCA):
    """Federated PCA whose sites hold their records in units of ``scales``; see the base class.

    ``holdout`` is the share of a site's records that models are judged by, above 0. Raises
    :class:`ConfigError`, and :class:`fedalt.errors.DataError` for the files.
    """

    judges_training_rows = False

    def __init__(
        self,
        data: str = "auto",
        root: str | None = None,
        clients: int = 20,
        partition: str = "sorted",
        feature: str | None = None,
        alpha: float = 0.3,
        rank: int = 5,
        holdout: float = 0.2,
        rows: int | None = None,
        seed: int = 0,
    ) -> None:
        if not 0.0 < holdout < 1.0:
            raise ConfigError(
                f"task.holdout={holdout}: must lie between 0 and 1; models are judged by these "
                "records alone, since what training records tell would have to be paid for"
            )
        super().__init__(data, root, clients, partition, feature, alpha, rank, holdout, rows, seed)

    def site_data(self, site: int) -> SiteRows:
        """Return one site's normal records, in public units."""
        return self._scaled[site]

    @cached_property
    def _scaled(self) -> list[SiteRows]:
        scale = scale_of(self.records.name)
        return [SiteRows(scale(rows.train), scale(rows.holdout)) for rows in self._rows]

    @cached_property
    def held_out(self) -> np.ndarray:
        """All sites' held-out records (h, d) in one place, in public units."""
        return np.concatenate([rows.holdout for rows in self._scaled])

    @property
    def training(self) -> np.ndarray:
        """All sites' training records (n, d) in one place: for references, never for a judge."""
        return np.concatenate([rows.train for rows in self._scaled])

    @cached_property
    def scaler(self) -> tuple[np.ndarray, np.ndarray]:
        """The mean of the held-out records, and ones: the units are public."""
        if not len(self.held_out):
            raise ConfigError(
                "task.holdout: no site is large enough to keep a record aside; raise it, or lower "
                "task.clients"
            )
        return self.held_out.mean(axis=0), np.ones(self.dimension)

    @cached_property
    def covariance(self) -> np.ndarray:
        """The covariance C_h (d, d) of the held-out records."""
        return spread(self.held_out)

    def scores(self, arrays: Arrays, rows: np.ndarray) -> np.ndarray:
        """Return the anomaly scores of raw rows under a model."""
        return super().scores(arrays, scale_of(self.records.name)(rows))


def spread(rows: np.ndarray) -> np.ndarray:
    """Return the covariance (d, d) of rows (n, d) about their mean."""
    centred = rows - rows.mean(axis=0)
    product: np.ndarray = centred.T @ centred / len(rows)
    return product

"""Fixtures of the tests of federated PCA; the driver itself is in pca_driver.py."""

from __future__ import annotations

import pytest
from pca_driver import Central, Federation, Rows, make_rows, solve_centrally, start


@pytest.fixture(scope="session")
def task() -> Rows:
    return make_rows()


@pytest.fixture(scope="session")
def scaled(task: Rows) -> Federation:
    """A federation with its scaler fitted; tests work on `scaled.restart()`."""
    return start(task).scale()


@pytest.fixture(scope="session")
def central(task: Rows) -> Central:
    return solve_centrally(task)

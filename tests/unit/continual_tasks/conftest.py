"""Streams of image tasks in these tests stand on the digits that scikit-learn carries."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no folder be named, so that the 1 437 and 360 digits take MNIST's place."""
    monkeypatch.delenv("FEDALT_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

"""What tests of data have in common."""

import pytest

from mres_jax.testing import buckets


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    """A store in memory behind `gs://`, and caches that are empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with buckets.bucket() as bucket:
        yield bucket

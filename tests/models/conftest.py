"""Faults of a machine."""

import contextlib
import resource

import pytest


@pytest.fixture
def limited_files():
    """A context in which no file can grow beyond a number of bytes, as on a full disk."""

    @contextlib.contextmanager
    def limit(size: int):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limit

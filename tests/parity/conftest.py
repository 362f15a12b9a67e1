"""What tests of parity share."""

import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def chatter() -> Iterator[None]:
    """transformers warns of its own deprecations; those are not ours to fail on."""
    with warnings.catch_warnings(action="ignore"):
        yield

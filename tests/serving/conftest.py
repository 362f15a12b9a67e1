"""A served tiny model, made once."""

import pytest

from mres_jax.data.types import Rung
from mres_jax.inference.answer import LocalAnswerer
from mres_jax.inference.handle import VLM
from mres_jax.serving import Limits, LocalBackend, PolicyRule
from mres_jax.testing import tiny_qwen2_vl
from mres_jax.testing.serving import serving

LADDER = (Rung(max_patches=512, max_tokens=512, max_views=16, max_examples=8),)


@pytest.fixture(scope="session")
def limits() -> Limits:
    return Limits(
        max_body_bytes=300_000, max_pictures=4, max_pixels=40_000, max_waiting_pixels=120_000
    )


@pytest.fixture(scope="session")
def vlm() -> VLM:
    """One size of pack and of cache, so that little is compiled."""
    return VLM("tiny", LocalAnswerer(*tiny_qwen2_vl(), ladder=LADDER, rows=(8,)))


@pytest.fixture(scope="session")
def served(vlm, limits):
    backend = LocalBackend(
        vlm, name="tiny", rule=PolicyRule("native", True), limits=limits, hosts=["127.0.0.1"]
    )
    with serving(backend, limits=limits) as server:
        yield server

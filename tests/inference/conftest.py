"""Tiny models and random prompts, made once."""

from typing import NamedTuple

import numpy as np
import pytest

from mres_jax.data.assemble import assemble
from mres_jax.data.conversations import prompt_messages
from mres_jax.data.packing import pack
from mres_jax.data.types import Example, Pack, Rung
from mres_jax.geometry import Box, Size, View
from mres_jax.testing import (
    TinyModel,
    tiny_nativeres_llava,
    tiny_qwen2_5_vl,
    tiny_qwen2_vl,
    tiny_qwen3_vl,
)

RUNG = Rung(max_patches=128, max_tokens=256, max_views=8, max_examples=4)


class Maker(NamedTuple):
    """Builds prompts for one model."""

    tiny: TinyModel

    def prompt(self, seed: int, grids=((2, 3),), words: int = 3) -> Example:
        """A question about random pictures; grids are rows and columns of visual tokens."""
        rng, stride = np.random.default_rng(seed), self.tiny.spec.stride
        sizes = [Size(rows * stride, columns * stride) for rows, columns in grids]
        images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
        views = [View(item=i, crop=Box(0, 0, *s), size=s, group=i) for i, s in enumerate(sizes)]
        text = " ".join(rng.choice(["what", "is", "the", "total", "A7", "x"], words))
        messages = prompt_messages(text, num_images=len(images))
        return assemble(
            images, views, messages, self.tiny.spec, self.tiny.tokenizer, generation_prompt=True
        )

    def pack(self, *examples: Example, rung: Rung = RUNG) -> Pack:
        return pack(examples, rung)


@pytest.fixture(scope="session")
def makers() -> dict[str, Maker]:
    """One per family."""
    return {
        "qwen2_vl": Maker(tiny_qwen2_vl()),
        "nativeres_llava": Maker(tiny_nativeres_llava()),
    }


@pytest.fixture(params=["qwen2_vl", "nativeres_llava"])
def maker(request, makers) -> Maker:
    return makers[request.param]


@pytest.fixture(
    scope="session", params=[pytest.param(tiny_qwen2_5_vl, marks=pytest.mark.slow), tiny_qwen3_vl]
)
def later(request) -> Maker:
    """Of later generations, which few tests need; less spread, since towers are a layer deeper."""
    return Maker(request.param(spread=3.0))


@pytest.fixture
def qwen(makers) -> Maker:
    return makers["qwen2_vl"]

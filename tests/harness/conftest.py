"""A model behind a harness, and the harness's requests as it makes them."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mres_jax.data.types import Rung
from mres_jax.harness import HarnessModel
from mres_jax.inference.answer import LocalAnswerer
from mres_jax.inference.handle import VLM
from mres_jax.testing import tiny_qwen2_vl

# The sizes of tests/serving, so that what is compiled there serves here.
LADDER = (Rung(max_patches=512, max_tokens=512, max_views=16, max_examples=8),)
SIZES = ((84, 56), (60, 140), (28, 28), (112, 70))  # of the documents' pictures, px


@dataclasses.dataclass
class Request:
    """A stand-in for lmms-eval's `Instance`."""

    args: tuple[Any, ...]
    task_name: str = "toy"


def picture(height: int, width: int) -> Image.Image:
    noise = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(noise)


def to_messages(document: dict) -> list[dict]:
    parts = [{"type": "image", "url": document["image"]}, {"type": "text", "text": document["ask"]}]
    return [{"role": "user", "content": parts}]


@pytest.fixture(scope="session")
def documents() -> list[dict]:
    return [
        {"image": picture(*size), "ask": f"what is in picture {i}?"} for i, size in enumerate(SIZES)
    ]


@pytest.fixture(scope="session")
def vlm() -> VLM:
    return VLM("tiny", LocalAnswerer(*tiny_qwen2_vl(), ladder=LADDER, rows=(8,)))


@pytest.fixture
def make_model(vlm, documents):
    """A model of a harness, with the documents of its task in place."""

    def make(**options) -> HarnessModel:
        options = {"vlm": vlm, "max_new_tokens": 6, "batch_size": 4} | options
        model = HarnessModel(**options)
        model.task_dict = {"toy": {"test": documents}}
        return model

    return make


@pytest.fixture
def ask():
    """The request about one document, in lmms-eval's form of a chat."""

    def make(number: int, **options) -> Request:
        return Request(("context", to_messages, options, number, "toy", "test"))

    return make

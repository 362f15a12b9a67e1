"""SmolVLM2 of `transformers`, tiny and random, beside ours out of its files."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from peers import spread
from PIL import Image

from mres_jax import testing
from mres_jax.data.types import Rung
from mres_jax.inference import load
from mres_jax.inference.answer import LocalAnswerer

transformers = pytest.importorskip("transformers")
smol_images = pytest.importorskip(
    "transformers.models.smolvlm.image_processing_pil_smolvlm", reason="needs transformers 5.x"
)

RUNG = Rung(max_patches=2_880, max_tokens=2_048, max_views=80, max_examples=8)


class Shape(NamedTuple):
    """Sizes of a tiny model; none stands at its default."""

    side: int  # of a square, pixels
    patch_size: int
    scale_factor: int
    vision: dict[str, int]
    kv_heads: int
    tied: bool


SHAPES = {
    "whole patches": Shape(
        24,
        4,
        2,
        {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3},
        kv_heads=2,
        tied=False,
    ),
    "pixels to spare": Shape(  # as in 2.2B: a square is no whole number of patches
        32,
        5,
        3,
        {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2},
        kv_heads=4,
        tied=True,
    ),
}


class Peer(NamedTuple):
    """A model of `transformers`, and ours out of the files it wrote."""

    name: str
    model: Any
    images: Any
    ours: LocalAnswerer
    directory: pathlib.Path


def make_peer(name: str, directory: pathlib.Path) -> Peer:
    """Of a shape by its name."""
    shape, vocabulary = SHAPES[name], testing.tiny_smolvlm_tokenizer()
    config = transformers.SmolVLMConfig(
        text_config={
            "model_type": "llama",
            "vocab_size": vocabulary.vocab_size,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": shape.kv_heads,
            "rms_norm_eps": 1e-3,
            "max_position_embeddings": 2_048,
            "rope_parameters": {"rope_type": "default", "rope_theta": 5_000.0},
        },
        vision_config={
            **shape.vision,
            "num_attention_heads": 2,
            "image_size": shape.side,
            "patch_size": shape.patch_size,
            "layer_norm_eps": 1e-4,
        },
        image_token_id=vocabulary.token_id("<image>"),
        scale_factor=shape.scale_factor,
        tie_word_embeddings=shape.tied,
        pad_token_id=vocabulary.token_id("<|im_end|>"),
    )
    model = spread(transformers.SmolVLMForConditionalGeneration(config))
    images = smol_images.SmolVLMImageProcessorPil(
        size={"longest_edge": 3 * shape.side}, max_image_size={"longest_edge": shape.side}
    )
    model.save_pretrained(directory)
    images.save_pretrained(directory)
    (directory / "tokenizer.json").write_bytes(vocabulary.to_bytes())
    ours = load(directory, ladder=[RUNG], rows=(8,)).answerer
    return Peer(name, model, images, ours, directory)


def seen(peer: Peer, images: Sequence[np.ndarray], **settings: Any) -> Any:
    """What their processor makes of the pictures of one prompt."""
    pictures = [Image.fromarray(image) for image in images]
    return peer.images(images=[pictures], return_tensors="pt", return_row_col_info=True, **settings)

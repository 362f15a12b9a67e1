"""SmolVLM2 and NativeRes-LLaVA on SigLIP2 with a few thousand random parameters."""

import dataclasses
from typing import Any

from flax import nnx

from mres_jax.data.tokenizer import Tokenizer, build_tiny_tokenizer
from mres_jax.models.nativeres_llava import processor as nativeres
from mres_jax.models.nativeres_llava.config import NativeResLlavaConfig
from mres_jax.models.nativeres_llava.model import NativeResLlava
from mres_jax.models.siglip.config import NaflexConfig, SquareConfig
from mres_jax.models.smolvlm import processor
from mres_jax.models.smolvlm.config import SmolVLMConfig
from mres_jax.models.smolvlm.model import SmolVLM
from mres_jax.testing.tiny import WORDS, TinyModel, fill, tiny_text_config, tiny_tokenizer
from mres_jax.testing.tiny_llava import tiny_llama_config

NUMBERED = 3  # rows and columns that have tokens


def tiny_smolvlm(*, seed: int = 0, image_size: int = 24, **preprocessor: Any) -> TinyModel:
    """A SmolVLM2: 4-pixel patches, 8-pixel visual tokens, squares of 24 px, at most 3 x 3 of them.

    Args:
      seed: of the weights.
      image_size: of a square, pixels.
      **preprocessor: fields of its `preprocessor_config.json`.
    """
    tokenizer = tiny_smolvlm_tokenizer()
    config = SmolVLMConfig(
        vision_config=tiny_siglip_config(image_size=image_size),
        text_config=dataclasses.replace(tiny_llama_config(tokenizer), num_key_value_heads=2),
        image_token_id=tokenizer.token_id("<image>"),
    )
    settings = {"size": {"longest_edge": NUMBERED * image_size}} | preprocessor
    spec = processor.make_spec(config, tokenizer.token_id, preprocessor=settings)
    model = fill(lambda: SmolVLM(config, rngs=nnx.Rngs(0)), scale=0.3, seed=seed)
    return TinyModel(model, spec, tokenizer)


def tiny_naflex(*, seed: int = 0, spatial_merge_size: int = 1, **preprocessor: Any) -> TinyModel:
    """A NativeRes-LLaVA on SigLIP2-NaFlex: 4-pixel patches, a table of 5 x 5 positions.

    Args:
      seed: of the weights.
      spatial_merge_size: patches per side of one visual token.
      **preprocessor: fields of its `preprocessor_config.json`; without any, native sizes are ours.
    """
    tokenizer = tiny_tokenizer()
    config = NativeResLlavaConfig(
        vision_config=NaflexConfig(
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            patch_size=4,
            num_patches=25,
            spatial_merge_size=spatial_merge_size,
        ),
        text_config=tiny_text_config(tokenizer),
        image_token_id=tokenizer.token_id("<|image_pad|>"),
        min_image_tokens=1,
        max_image_tokens=64,
    )
    spec = nativeres.make_spec(config, tokenizer.token_id, preprocessor=preprocessor or None)
    model = fill(lambda: NativeResLlava(config, rngs=nnx.Rngs(0)), scale=0.3, seed=seed)
    return TinyModel(model, spec, tokenizer)


def tiny_siglip_config(*, image_size: int) -> SquareConfig:
    """Two layers of 16 channels, 4-pixel patches, four of them a visual token."""
    return SquareConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        patch_size=4,
        image_size=image_size,
        spatial_merge_size=2,
    )


def tiny_smolvlm_tokenizer() -> Tokenizer:
    """The tiny vocabulary with the control tokens of SmolVLM2, numbered to 3 x 3."""
    numbers = range(1, NUMBERED + 1)
    tiles = [processor.TILE.format(row=r, column=c) for r in numbers for c in numbers]
    tokenizer = build_tiny_tokenizer(WORDS)
    tokenizer.add_special_tokens(
        ["<image>", processor.AROUND, processor.WHOLE, processor.END, *tiles]
    )
    return Tokenizer(tokenizer)

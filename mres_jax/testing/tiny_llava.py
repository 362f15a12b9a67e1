"""LLaVA-1.5, LLaVA-NeXT and LLaVA-HR with a few thousand random parameters."""

import dataclasses
from typing import Any

from flax import nnx

from mres_jax.data.tokenizer import Tokenizer
from mres_jax.models.clip.config import ClipConfig
from mres_jax.models.convnext.config import ConvNeXtConfig
from mres_jax.models.llama.config import LlamaConfig
from mres_jax.models.llava import processor as llava_processor
from mres_jax.models.llava.config import LlavaConfig
from mres_jax.models.llava.model import Llava
from mres_jax.models.llava_hr import processor as llava_hr_processor
from mres_jax.models.llava_hr.config import DualConfig, LlavaHRConfig
from mres_jax.models.llava_hr.model import LlavaHR
from mres_jax.models.llava_next import processor as llava_next_processor
from mres_jax.models.llava_next.config import LlavaNextConfig
from mres_jax.models.llava_next.model import LlavaNext
from mres_jax.testing.tiny import TinyModel, fill, tiny_tokenizer

SIDE = 16  # of the table of positions, pixels: 4 x 4 patches


def tiny_llava(*, seed: int = 0, **changes: Any) -> TinyModel:
    """A LLaVA-1.5: 4-pixel patches, three layers of which two run; `changes` are of its config."""
    tokenizer = tiny_tokenizer()
    config = LlavaConfig(**_parts(tokenizer) | {"input_image_size": SIDE} | changes)
    model = fill(lambda: Llava(config, rngs=nnx.Rngs(0)), scale=0.3, seed=seed)
    return TinyModel(model, llava_processor.make_spec(config, tokenizer.token_id), tokenizer)


def tiny_llava_next(*, seed: int = 0, **changes: Any) -> TinyModel:
    """A LLaVA-NeXT: the same with tiles of 16 px on canvases of up to 2 x 2 and 3 x 1 tiles."""
    tokenizer = tiny_tokenizer()
    pinpoints = ((16, 32), (32, 16), (32, 32), (48, 16), (16, 48))
    sizes = {"input_image_size": SIDE, "image_grid_pinpoints": pinpoints}
    config = LlavaNextConfig(**_parts(tokenizer) | sizes | changes)
    model = fill(lambda: LlavaNext(config, rngs=nnx.Rngs(0)), scale=0.3, seed=seed)
    return TinyModel(model, llava_next_processor.make_spec(config, tokenizer.token_id), tokenizer)


def tiny_dual_config(side: int = 128, **changes: Any) -> DualConfig:
    """Four layers beside four stages; 128 px are 4 x 4 patches of either tower."""
    low = dataclasses.replace(
        tiny_clip_config(),
        num_hidden_layers=4,
        feature_layer=-1,
        class_token=False,
        position_resize="bicubic_antialias",
    )
    high = ConvNeXtConfig(depths=(1, 1, 2, 1), hidden_sizes=(8, 8, 12, 16))
    return DualConfig(**{"low": low, "high": high, "input_image_size": side} | changes)


def tiny_llava_hr(
    *, side: int = 128, seed: int = 0, image_aspect_ratio: Any = "pad", **changes: Any
) -> TinyModel:
    """A LLaVA-HR for pictures of `side` px; `changes` are of its towers."""
    tokenizer = tiny_tokenizer()
    config = LlavaHRConfig(
        vision_config=tiny_dual_config(side, **changes),
        text_config=tiny_llama_config(tokenizer),
        image_token_index=tokenizer.token_id("<|image_pad|>"),
        image_aspect_ratio=image_aspect_ratio,
    )
    model = fill(lambda: LlavaHR(config, rngs=nnx.Rngs(0)), scale=0.3, seed=seed)
    return TinyModel(model, llava_hr_processor.make_spec(config, tokenizer.token_id), tokenizer)


def tiny_clip_config() -> ClipConfig:
    """Three layers of 16 channels, 4-pixel patches."""
    return ClipConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=4,
    )


def tiny_llama_config(tokenizer: Tokenizer) -> LlamaConfig:
    """Two layers of 32 channels."""
    return LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
    )


def _parts(tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "vision_config": tiny_clip_config(),
        "text_config": tiny_llama_config(tokenizer),
        "image_token_index": tokenizer.token_id("<|image_pad|>"),
    }

"""Whole models of a few thousand random parameters, with tokenizer and processor."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from mres_jax.data.spec import ChatTemplate, ProcessorSpec
from mres_jax.data.tokenizer import Tokenizer, build_tiny_tokenizer
from mres_jax.models.nativeres_llava import processor as nativeres_llava_processor
from mres_jax.models.nativeres_llava.config import NativeResLlavaConfig
from mres_jax.models.nativeres_llava.model import NativeResLlava
from mres_jax.models.qwen2.config import TextConfig
from mres_jax.models.qwen2_vl import processor as qwen2_vl_processor
from mres_jax.models.qwen2_vl.config import Qwen2VLConfig, VisionConfig
from mres_jax.models.qwen2_vl.model import Qwen2VL
from mres_jax.models.vlm import PackedVLM

WORDS = ("what", "is", "the", "total", "colour", "red", "blue", "invoice", "user", "assistant")
LIMITS = {"min_pixels": 2 * 8 * 8, "max_pixels": 48 * 8 * 8}  # 2 to 48 visual tokens a view

Module = TypeVar("Module", bound=nnx.Module)


class TinyModel(NamedTuple):
    """A model and what the host needs to talk to it."""

    model: PackedVLM
    spec: ProcessorSpec
    tokenizer: Tokenizer


def tiny_tokenizer() -> Tokenizer:
    """Bytes, ten words and the control tokens of Qwen2-VL."""
    return Tokenizer(build_tiny_tokenizer(WORDS))


def tiny_qwen2_vl(
    *, seed: int = 0, spread: float = 4.0, dtype: DTypeLike = jnp.float32
) -> TinyModel:
    """A Qwen2-VL with random weights: patch 4, merge 2, two layers each, M-RoPE.

    Args:
      seed: of the weights.
      spread: factor of the kernels; at 1 random models say the same whatever they are shown.
      dtype: of the arithmetic.
    """
    tokenizer = tiny_tokenizer()
    config = Qwen2VLConfig(
        vision_config=tiny_vision_config(hidden_size=32),
        text_config=tiny_text_config(tokenizer, mrope_section=(1, 1, 2)),
        image_token_id=tokenizer.token_id("<|image_pad|>"),
        video_token_id=tokenizer.token_id("<|video_pad|>"),
        vision_start_token_id=tokenizer.token_id("<|vision_start|>"),
        vision_end_token_id=tokenizer.token_id("<|vision_end|>"),
    )
    model = Qwen2VL(config, dtype=dtype, rngs=nnx.Rngs(seed))
    spec = qwen2_vl_processor.make_spec(config, tokenizer.token_id, preprocessor=LIMITS)
    return TinyModel(_spread(model, spread), spec, tokenizer)


def tiny_nativeres_llava(
    *, seed: int = 0, spread: float = 4.0, dtype: DTypeLike = jnp.float32
) -> TinyModel:
    """A NativeRes-LLaVA with random weights: the same sizes, a projector, plain rotary."""
    tokenizer = tiny_tokenizer()
    config = NativeResLlavaConfig(
        vision_config=tiny_vision_config(hidden_size=24),
        text_config=tiny_text_config(tokenizer),
        image_token_id=tokenizer.token_id("<|image_pad|>"),
    )
    model = NativeResLlava(config, dtype=dtype, rngs=nnx.Rngs(seed))
    spec = nativeres_llava_processor.make_spec(config, tokenizer.token_id, preprocessor=LIMITS)
    return TinyModel(_spread(model, spread), spec, tokenizer)


def tiny_template(*, system: str | None = None) -> ChatTemplate:
    """Turns as Qwen writes them."""
    return ChatTemplate(
        system=system,
        turn_open="<|im_start|>{role}\n",
        turn_close="<|im_end|>\n",
        image_open="<|vision_start|>",
        image_close="<|vision_end|>",
    )


def tiny_spec(tokenizer: Tokenizer, *, system: str | None = None) -> ProcessorSpec:
    """What a host needs of a model that there is not: 4-pixel patches, 1 to 64 tokens a view."""
    image = tokenizer.token_id("<|image_pad|>")
    return ProcessorSpec(
        patch_size=4,
        merge_size=2,
        temporal_patch_size=1,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        min_pixels=8 * 8,
        max_pixels=64 * 64,
        image_token_id=image,
        pad_token_id=tokenizer.token_id("<|endoftext|>"),
        eos_token_ids=(tokenizer.token_id("<|im_end|>"),),
        reserved_token_ids=(image,),
        template=tiny_template(system=system),
        position_rule="mrope",
        coord_frame="resized_px",
    )


def tiny_vision_config(*, hidden_size: int) -> VisionConfig:
    """Two layers of 16 channels, 4-pixel patches."""
    return VisionConfig(depth=2, embed_dim=16, num_heads=2, hidden_size=hidden_size, patch_size=4)


def tiny_text_config(
    tokenizer: Tokenizer, *, mrope_section: tuple[int, int, int] | None = None
) -> TextConfig:
    """Two layers of 32 channels, four query heads on two key/value heads."""
    return TextConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        mrope_section=mrope_section,
    )


def fill(make: Callable[[], Module], *, scale: float = 0.5, seed: int = 0) -> Module:
    """The module with normal parameters of deviation `scale`; made by itself it compiles long."""
    graphdef, abstract = nnx.split(nnx.eval_shape(make))
    draw = np.random.default_rng(seed)
    return nnx.merge(
        graphdef,
        jax.tree.map(lambda x: jnp.asarray(draw.normal(0, scale, x.shape), x.dtype), abstract),
    )


def _spread(model: PackedVLM, factor: float) -> PackedVLM:
    """Multiplies every kernel of the model."""

    def scale(path, leaf):
        return leaf * factor if path[-1].key == "kernel" else leaf

    graphdef, state = nnx.split(model)
    pure = jax.tree_util.tree_map_with_path(scale, nnx.to_pure_dict(state))
    nnx.replace_by_pure_dict(state, pure)
    return nnx.merge(graphdef, state)

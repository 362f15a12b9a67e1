"""Whole models of a few thousand random parameters, with tokenizer and processor."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from mres_jax.data.spec import ChatTemplate, ProcessorSpec
from mres_jax.data.tokenizer import Tokenizer, build_tiny_tokenizer
from mres_jax.data.video import clip_of
from mres_jax.models.nativeres_llava.config import NativeResLlavaConfig
from mres_jax.models.qwen2.config import TextConfig
from mres_jax.models.qwen2_5_vl.config import Qwen2_5VLConfig, VisionConfig as WindowedConfig
from mres_jax.models.qwen2_vl.config import Qwen2VLConfig, VisionConfig
from mres_jax.models.qwen3.config import TextConfig as Qwen3TextConfig
from mres_jax.models.qwen3_vl.config import Qwen3VLConfig, VisionConfig as DeepStackConfig
from mres_jax.models.registry import FAMILIES
from mres_jax.models.vlm import PackedVLM
from mres_jax.protocols import Clip

WORDS = ("what", "is", "the", "total", "colour", "red", "blue", "invoice", "user", "assistant")
LIMITS = {  # 2 to 48 visual tokens a picture, 1 to 24 for two frames (Qwen3-VL: for a clip)
    "min_pixels": 2 * 8 * 8,
    "max_pixels": 48 * 8 * 8,
    "video_processor": {"min_pixels": 8 * 8, "max_pixels": 24 * 8 * 8},
}

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
    return _tiny("qwen2_vl", seed=seed, spread=spread, dtype=dtype)


def tiny_qwen2_5_vl(
    *, seed: int = 0, spread: float = 4.0, dtype: DTypeLike = jnp.float32
) -> TinyModel:
    """A Qwen2.5-VL with random weights: windows of 2 x 2 visual tokens, three layers, one whole."""
    return _tiny("qwen2_5_vl", seed=seed, spread=spread, dtype=dtype)


def tiny_qwen3_vl(
    *, seed: int = 0, spread: float = 4.0, dtype: DTypeLike = jnp.float32
) -> TinyModel:
    """A Qwen3-VL with random weights: three layers, two of them in DeepStack, 5 x 5 positions."""
    return _tiny("qwen3_vl", seed=seed, spread=spread, dtype=dtype)


def tiny_nativeres_llava(
    *, seed: int = 0, spread: float = 4.0, dtype: DTypeLike = jnp.float32
) -> TinyModel:
    """A NativeRes-LLaVA with random weights: the same sizes, a projector, plain rotary."""
    return _tiny("llava_qwen", seed=seed, spread=spread, dtype=dtype)


def tiny_config(family: str, tokenizer: Tokenizer) -> Any:
    """The configuration of a tiny model by its `model_type`, with a tokenizer's ids."""
    return _CONFIGS[family](tokenizer)


def _qwen2_vl(tokenizer: Tokenizer) -> Qwen2VLConfig:
    return Qwen2VLConfig(
        vision_config=tiny_vision_config(hidden_size=32),
        text_config=tiny_text_config(tokenizer, mrope_section=(1, 1, 2)),
        **_token_ids(tokenizer),
    )


def _qwen2_5_vl(tokenizer: Tokenizer) -> Qwen2_5VLConfig:
    vision = WindowedConfig(**_TOWER, window_size=16, fullatt_block_indexes=(1,))
    return Qwen2_5VLConfig(
        vision_config=vision,
        text_config=tiny_text_config(tokenizer, mrope_section=(1, 1, 2)),
        **_token_ids(tokenizer),
    )


def _qwen3_vl(tokenizer: Tokenizer) -> Qwen3VLConfig:
    text = {"mrope_section": (2, 2, 2), "head_dim": 12, "num_hidden_layers": 3}
    vision = DeepStackConfig(**_TOWER, num_position_embeddings=25, deepstack_visual_indexes=(0, 2))
    return Qwen3VLConfig(
        vision_config=vision,
        text_config=Qwen3TextConfig(**{**vars(tiny_text_config(tokenizer)), **text}),
        **_token_ids(tokenizer),
    )


def _nativeres_llava(tokenizer: Tokenizer) -> NativeResLlavaConfig:
    return NativeResLlavaConfig(
        vision_config=tiny_vision_config(hidden_size=24),
        text_config=tiny_text_config(tokenizer),
        image_token_id=tokenizer.token_id("<|image_pad|>"),
    )


_TOWER: dict[str, Any] = {
    "depth": 3,
    "num_heads": 2,
    "hidden_size": 16,
    "intermediate_size": 20,
    "out_hidden_size": 32,
    "patch_size": 4,
}
_CONFIGS: dict[str, Callable[[Tokenizer], Any]] = {
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "llava_qwen": _nativeres_llava,
}


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


def tiny_clip(seed: int, height: int, width: int, *, frames: int = 4, fps: float = 2.0) -> Clip:
    """Random frames, px, at a steady rate."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (frames, height, width, 3), np.uint8)
    return clip_of(list(pixels), fps=fps, name=f"tiny {seed}")


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


def _token_ids(tokenizer: Tokenizer) -> dict[str, int]:
    names = ("image", "<|image_pad|>"), ("video", "<|video_pad|>")
    marks = ("vision_start", "<|vision_start|>"), ("vision_end", "<|vision_end|>")
    return {f"{field}_token_id": tokenizer.token_id(name) for field, name in (*names, *marks)}


def _tiny(name: str, *, seed: int, spread: float, dtype: DTypeLike) -> TinyModel:
    tokenizer = tiny_tokenizer()
    config, family = tiny_config(name, tokenizer), FAMILIES[name]
    make: Any = family.Model  # each family narrows `config`
    spec = family.make_spec(config, tokenizer.token_id, preprocessor=LIMITS)
    model = make(config, dtype=dtype, rngs=nnx.Rngs(seed))
    return TinyModel(_spread(model, spread), spec, tokenizer)


def _spread(model: PackedVLM, factor: float) -> PackedVLM:
    """Multiplies every kernel of the model."""

    def scale(path, leaf):
        return leaf * factor if path[-1].key == "kernel" else leaf

    graphdef, state = nnx.split(model)
    pure = jax.tree_util.tree_map_with_path(scale, nnx.to_pure_dict(state))
    nnx.replace_by_pure_dict(state, pure)
    return nnx.merge(graphdef, state)

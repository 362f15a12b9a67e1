"""Sizes of models that this project ships or knows by name."""

import dataclasses
from typing import Literal

from mres_jax.models.nativeres_llava.config import NativeResLlavaConfig
from mres_jax.models.qwen2.config import TextConfig
from mres_jax.models.qwen2.presets import SMOKE as DECODER
from mres_jax.models.qwen2_vl.config import VisionConfig
from mres_jax.models.siglip.config import NAFLEX, NaflexConfig


def mres_tiny(*, position_side: int = 0) -> NativeResLlavaConfig:
    """The shipped model: 1.9 M parameters, 8-pixel patches, 16-pixel visual tokens.

    It reads generated documents (`mres_jax.data.documents`) and nothing else.

    Args:
      position_side: of a learned table of positions in the tower, for models that point; 0: none.
    """
    return NativeResLlavaConfig(
        vision_config=VisionConfig(
            depth=4,
            embed_dim=128,
            num_heads=4,
            hidden_size=128,
            patch_size=8,
            num_position_embeddings=position_side**2,
            image_mean=(0.5, 0.5, 0.5),
            image_std=(0.25, 0.25, 0.25),
        ),
        text_config=TextConfig(
            vocab_size=512,
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            rope_theta=1_000_000.0,
            tie_word_embeddings=True,
            max_position_embeddings=4_096,
        ),
        image_token_id=451,  # <|image_pad|> of its tokenizer
        min_image_tokens=1,
        max_image_tokens=3_072,
    )


def nativeres_llava(
    size: Literal["0.5b", "1.5b", "7b"],
    *,
    tower: Literal["qwen2_vl", "siglip2-base", "siglip2-so400m"] = "qwen2_vl",
) -> NativeResLlavaConfig:
    """The paper's model on a Qwen2 decoder of that size: 1.2, 2.2 and 8.3 B parameters in all.

    The tower is that of Qwen2-VL-2B, its merger included; 4 to 4,096 visual tokens a picture.
    Others are SigLIP2-NaFlex, of whose patches 2 x 2 are put side by side to one visual token; this
    project's choice, for the paper has none.

    Reference:
      Niu et al., 2025, "Native Visual Understanding", arXiv:2506.12776, section 4.
    """
    width, layers, heads, kv_heads, intermediate_size, rows = _QWEN2[size]
    return NativeResLlavaConfig(
        vision_config=_tower(tower),
        text_config=TextConfig(
            vocab_size=rows,
            hidden_size=width,
            intermediate_size=intermediate_size,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            tie_word_embeddings=size != "7b",
        ),
    )


def _tower(name: str) -> VisionConfig | NaflexConfig:
    if name == "qwen2_vl":
        return VisionConfig(depth=32, embed_dim=1_280, num_heads=16, hidden_size=1_536)
    return dataclasses.replace(NAFLEX[name.removeprefix("siglip2-")], spatial_merge_size=2)


_QWEN2 = {  # channels, layers, heads, key/value heads, feed-forward channels, vocabulary rows
    "0.5b": (896, 24, 14, 2, 4_864, 151_936),
    "1.5b": (1_536, 28, 12, 2, 8_960, 151_936),
    "7b": (3_584, 28, 28, 4, 18_944, 152_064),
}

# Overrides of a run file that leave little of such a model, for a look at the run on a CPU.
SMOKE = DECODER | {
    "model.vision_config.depth": "2",
    "model.vision_config.embed_dim": "32",
    "model.vision_config.num_heads": "2",
    "model.vision_config.hidden_size": "32",
    "model.max_image_tokens": "256",
}

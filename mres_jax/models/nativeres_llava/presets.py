"""Sizes of models that this project ships or knows by name."""

from mres_jax.models.nativeres_llava.config import NativeResLlavaConfig
from mres_jax.models.qwen2.config import TextConfig
from mres_jax.models.qwen2_vl.config import VisionConfig


def mres_tiny() -> NativeResLlavaConfig:
    """The shipped model: 1.9 M parameters, 8-pixel patches, 16-pixel visual tokens.

    It reads generated documents (`mres_jax.data.documents`) and nothing else.
    """
    return NativeResLlavaConfig(
        vision_config=VisionConfig(
            depth=4,
            embed_dim=128,
            num_heads=4,
            hidden_size=128,
            patch_size=8,
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

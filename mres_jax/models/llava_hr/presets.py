"""Sizes of released models, and what to leave of them for a look on a CPU."""

from typing import Literal

from mres_jax.models.clip.config import ClipConfig
from mres_jax.models.convnext.config import ConvNeXtConfig, convnext_large, convnext_xxlarge
from mres_jax.models.llama.config import LlamaConfig, vicuna
from mres_jax.models.llava_hr.config import DualConfig, LlavaHRConfig


def llava_hr(
    size: Literal["7b", "13b", "7b-x", "13b-x"],
    *,
    side: int = 1_024,
    num_adapters: int = 3,
    image_aspect_ratio: Literal["pad", "square", "native"] = "pad",
) -> LlavaHRConfig:
    """LLaVA-HR with Vicuna 7B or 13B: 7.3, 13.6, 7.9 and 14.2 B parameters; `-x` is LLaVA-HR-X.

    Args:
      size: of the decoder, and which ConvNeXt.
      side: of the large picture, pixels; the released models have 1,024.
      num_adapters: 0 in the first stage of training.
      image_aspect_ratio: `square` in the first stage, whose pictures are not padded; `native` lets
        pictures keep their ratio, in any stage from 768 px on.

    Reference:
      Luo et al., 2024, "Feast Your Eyes", arXiv:2403.03003, section 4.
    """
    decoder, _, larger = size.partition("-")
    return LlavaHRConfig(
        vision_config=DualConfig(
            high=convnext_xxlarge() if larger else convnext_large(),
            input_image_size=side,
            num_adapters=num_adapters,
        ),
        text_config=vicuna(decoder),
        image_aspect_ratio=image_aspect_ratio,
    )


def mres_tiny_hr() -> LlavaHRConfig:
    """A dual pathway of 2.6 M parameters for generated documents: 256 px, 256 visual tokens.

    Its ViT sees a square of 128 px in 8-pixel patches, a ConvNeXt of three stages the square at
    256 px in positions of 16 px: one per visual token, as those of `mres-tiny`. Its kernels have
    3 x 3 positions, for training on a CPU.
    """
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    return LlavaHRConfig(
        vision_config=DualConfig(
            low=ClipConfig(
                hidden_size=128,
                intermediate_size=384,
                num_hidden_layers=4,
                num_attention_heads=4,
                image_size=128,
                patch_size=8,
                feature_layer=-1,
                class_token=False,
                position_resize="bicubic_antialias",
                image_mean=mean,
                image_std=std,
            ),
            high=ConvNeXtConfig(
                depths=(1, 2, 6),
                hidden_sizes=(32, 64, 128),
                kernel_size=3,
                layer_scale_init_value=0.1,
                image_mean=mean,
                image_std=std,
            ),
            input_image_size=256,
        ),
        text_config=LlamaConfig(
            vocab_size=512,
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            rope_theta=1_000_000.0,
            tie_word_embeddings=False,
            rms_norm_eps=1e-6,
        ),
        image_token_index=451,  # <|image_pad|> of its tokenizer
    )


# Overrides of a run file that leave little of such a model, for a look at the run on a CPU.
SMOKE = {
    "model.vision_config.low.hidden_size": "32",
    "model.vision_config.low.intermediate_size": "64",
    "model.vision_config.low.num_hidden_layers": "4",
    "model.vision_config.low.num_attention_heads": "2",
    "model.vision_config.low.image_size": "56",
    "model.vision_config.high.depths": "1,1,1,1",
    "model.vision_config.high.hidden_sizes": "8,16,24,32",
    "model.vision_config.input_image_size": "128",
    "model.text_config.vocab_size": "512",
    "model.text_config.hidden_size": "32",
    "model.text_config.intermediate_size": "64",
    "model.text_config.num_hidden_layers": "2",
    "model.text_config.num_attention_heads": "2",
    "model.text_config.num_key_value_heads": "2",
    "model.image_token_index": "451",  # of the tokenizer that a run without `init` has
    "init": "none",
    "dtype": "float32",
    "num_workers": "0",
    "accumulation": "1",
    "mesh.fsdp": "1",
    "schedule.epochs": "none",
    "schedule.num_steps": "2",
}

"""LLaVA-1.5 to and from files: those of Hugging Face's class and those of LLaVA's own code.

Keys are written as hub files have them (`language_model.*`, `vision_tower.*`); what transformers
from 4.52 on has in memory (`model.language_model.*`) and what LLaVA's own code writes
(`model.mm_projector.*`, `model.layers.*`) is read as well. There the tower may be absent, since it
was frozen: it is read from the folder `vision_tower` then.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mres_jax.errors import CheckpointError
from mres_jax.models.clip.config import ClipConfig
from mres_jax.models.clip.convert import (
    IGNORED as CLIP_IGNORED,
    clip_config_from_hf,
    clip_config_to_hf,
    clip_keys,
)
from mres_jax.models.hf_fields import Fields, as_checkpoint_error
from mres_jax.models.key_table import Beside, Key, KeyTable
from mres_jax.models.layers import linear_keys
from mres_jax.models.llama.convert import (
    IGNORED,
    KEYS as TEXT_KEYS,
    MODEL_TYPES as TEXT_MODEL_TYPES,
    llama_config_from_hf,
    llama_config_to_hf,
)
from mres_jax.models.llava.config import LlavaConfig
from mres_jax.models.qwen2.convert import is_tied

MODEL_TYPE, ARCHITECTURE = "llava", "LlavaForConditionalGeneration"
PROCESSOR = "LlavaProcessor"
TOWER = "vision_tower.vision_model."
MODULES = (
    (r"^language_model\.model\.", "model.language_model."),
    (r"^language_model\.lm_head\.", "lm_head."),
    (r"^vision_tower\.vision_model\.", "model.vision_tower."),
    (r"^multi_modal_projector\.", "model.multi_modal_projector."),
)
RENAMES = (
    (r"^model\.language_model\.", "language_model.model."),
    (r"^model\.(embed_tokens|layers|norm)\.", r"language_model.model.\1."),
    (r"^lm_head\.", "language_model.lm_head."),
    (r"^model\.multi_modal_projector\.", "multi_modal_projector."),
    (r"^model\.mm_projector\.0\.", "multi_modal_projector.linear_1."),
    (r"^model\.mm_projector\.2\.", "multi_modal_projector.linear_2."),
    (r"^(model\.)?vision_tower\.(vision_tower\.)?(vision_model\.)?", TOWER),
    (r"^model\.image_newline$", "image_newline"),
)
BESIDE = Beside(
    name="the vision tower",
    folder="vision_tower",
    prefix=TOWER,
    renames=((r"^(vision_tower\.)?vision_model\.", ""),),
    ignored=CLIP_IGNORED,
)
# Of LLaVA's own training code; they change nothing when the model runs.
_TRAINING_FIELDS = """
freeze_mm_mlp_adapter freeze_mm_vision_resampler freeze_vision image_crop_resolution
image_split_resolution max_sequence_length mm_patch_merge_type mm_projector_lr mm_resampler_type
mm_vision_tower_lr pad_token_id pretraining_tp tokenizer_model_max_length tokenizer_padding_side
tune_mm_mlp_adapter tune_mm_vision_resampler unfreeze_mm_vision_tower use_mm_proj delay_load
"""


def key_table(config: LlavaConfig) -> KeyTable:
    """Keys of a LLaVA-1.5."""
    return llava_table(config.vision_config)


def llava_table(vision: ClipConfig, *more: Key) -> KeyTable:
    """Keys of a CLIP tower, projector and decoder, and `more`."""
    return KeyTable(
        keys=(
            *more,
            *clip_keys(vision, TOWER, "vision"),
            *linear_keys("multi_modal_projector.linear_1", "projector.up"),
            *linear_keys("multi_modal_projector.linear_2", "projector.down"),
            *(dataclasses.replace(key, hf=f"language_model.{key.hf}") for key in TEXT_KEYS),
        ),
        renames=RENAMES,
        modules=MODULES,
        ignored=(*IGNORED, r"position_ids$"),
        tied={"language_model.lm_head.weight": "language_model.model.embed_tokens.weight"},
        beside=(BESIDE,),
    )


def config_from_hf(
    content: Mapping[str, Any], preprocessor: Mapping[str, Any] | None = None
) -> LlavaConfig:
    """Returns the configuration in a `config.json`, of Hugging Face's class or LLaVA's own code."""
    fields = Fields(content, "config.json")
    fields.expect("model_type", (MODEL_TYPE, "llava_llama"))
    parts = llava_parts(fields, preprocessor or {})
    side = fields.get("input_image_size", parts["vision_config"].image_size, int)
    aspect = fields.get("image_aspect_ratio", LlavaConfig.image_aspect_ratio, str)
    try:
        config = LlavaConfig(
            **parts,
            input_image_size=side or None,
            image_aspect_ratio=aspect,
        )
    except ValueError as error:
        raise as_checkpoint_error(error) from error
    fields.close()
    return config


def llava_parts(fields: Fields, preprocessor: Mapping[str, Any]) -> dict[str, Any]:
    """Reads what LLaVA-1.5 and LLaVA-NeXT have in common: tower, decoder, the picture's token."""
    fields.expect("projector_hidden_act", ("gelu",))
    fields.expect("vision_feature_select_strategy", ("default",))
    fields.expect("multimodal_projector_bias", (True,))
    fields.ignore(("image_seq_length", "image_token_id"))
    try:
        if not fields.content.get("text_config"):
            return _released_parts(fields, preprocessor)
        text, vision = fields.child("text_config"), fields.child("vision_config")
        text.expect("model_type", TEXT_MODEL_TYPES)
        parts = {
            "vision_config": clip_config_from_hf(
                vision,
                preprocessor,
                feature_layer=fields.get("vision_feature_layer", -2, int),
                position_resize=fields.get("position_resize", ClipConfig.position_resize, str),
            ),
            "text_config": llama_config_from_hf(text, tie_word_embeddings=is_tied(fields, text)),
            "image_token_index": fields.get(
                "image_token_index", LlavaConfig.image_token_index, int
            ),
        }
    except ValueError as error:
        raise as_checkpoint_error(error) from error
    text.close()
    vision.close()
    return parts


def _released_parts(fields: Fields, preprocessor: Mapping[str, Any]) -> dict[str, Any]:
    """The same of LLaVA's own files: the decoder's fields at the top, the tower by its name."""
    expect_released(fields)
    fields.expect("mm_vision_select_feature", ("patch",))
    layer = fields.get("mm_vision_select_layer", -2, int)
    vision = released_clip(fields, preprocessor, feature_layer=layer)
    fields.expect("mm_hidden_size", (vision.hidden_size,))
    return {
        "vision_config": vision,
        "text_config": llama_config_from_hf(fields, tie_word_embeddings=False),
        "image_token_index": -1,  # there is none in the vocabulary
    }


def expect_released(fields: Fields) -> None:
    """Notes what LLaVA's own `config.json` may say only one way, and skips what says nothing."""
    fields.expect("mm_projector_type", ("mlp2x_gelu",))
    fields.expect("mm_use_im_start_end", (False,))
    fields.expect("mm_use_im_patch_token", (False,))
    fields.expect("tie_word_embeddings", (False,))
    fields.ignore(_TRAINING_FIELDS.split())


def released_clip(fields: Fields, preprocessor: Mapping[str, Any], **choices: Any) -> ClipConfig:
    """The CLIP that a file names, or that our `vision_config` gives the sizes of."""
    own, name = fields.child("vision_config"), fields.get("mm_vision_tower", "", str)
    if not own.content and "clip-vit-large-patch14-336" not in name:
        raise CheckpointError(
            f"config.json: mm_vision_tower={name!r} without a vision_config; only "
            "openai/clip-vit-large-patch14-336 is known by name."
        )
    config = clip_config_from_hf(own, preprocessor, **choices)
    own.close()
    return config


def config_to_hf(config: LlavaConfig) -> dict[str, Any]:
    """Returns a `config.json` of Hugging Face's class; fields of ours where they say more."""
    content = llava_parts_to_hf(config, ARCHITECTURE, MODEL_TYPE)
    vision = config.vision_config
    if config.input_image_size != vision.image_size:
        content["input_image_size"] = config.input_image_size or 0
    if config.image_aspect_ratio != LlavaConfig.image_aspect_ratio:
        content["image_aspect_ratio"] = config.image_aspect_ratio
    return content


def llava_parts_to_hf(config: Any, architecture: str, model_type: str) -> dict[str, Any]:
    """What `llava_parts` reads."""
    vision = config.vision_config
    content = {
        "architectures": [architecture],
        "model_type": model_type,
        "text_config": {
            "model_type": config.text_config.model_type,
            **llama_config_to_hf(config.text_config),
        },
        "vision_config": clip_config_to_hf(vision),
        "image_token_index": config.image_token_index,
        "image_seq_length": vision.table_side**2,
        "projector_hidden_act": "gelu",
        "vision_feature_layer": vision.feature_layer,
        "vision_feature_select_strategy": "default",
        "multimodal_projector_bias": True,
        "tie_word_embeddings": config.text_config.tie_word_embeddings,
    }
    if vision.position_resize != ClipConfig.position_resize:
        content["position_resize"] = vision.position_resize
    return content


def check_export(config: Any) -> None:
    """Raises `CheckpointError` for a variant that Hugging Face's class cannot be."""
    problems = []
    if not config.vision_config.class_token:
        problems.append("tower without a class token")
    if not 0 <= config.image_token_index < config.text_config.vocab_size:
        problems.append("vocabulary without a token for pictures")
    if problems:
        raise CheckpointError(
            f"export: {ARCHITECTURE} has no {' and no '.join(problems)}. Keep this model as a "
            "checkpoint of ours."
        )

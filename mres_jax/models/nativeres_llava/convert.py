"""NativeRes-LLaVA to and from its released files: configuration fields and keys.

transformers has no class for this model: the released code registers its own `llava_qwen`. Keys are
those of the released weights. `vision_config`, `image_token_id` and the token limits are fields of
ours: the released `config.json` names its tower by a path instead. A SigLIP2-NaFlex may lie in the
folder `vision_tower`, as it is on the hub.
"""

from collections.abc import Mapping
from typing import Any

from mres_jax.errors import CheckpointError
from mres_jax.models.hf_fields import Fields, as_checkpoint_error
from mres_jax.models.key_table import Beside, Key, KeyTable
from mres_jax.models.layers import linear_keys
from mres_jax.models.nativeres_llava.config import NativeResLlavaConfig
from mres_jax.models.qwen2.convert import (
    IGNORED,
    KEYS as TEXT_KEYS,
    TIED,
    is_tied,
    text_config_from_hf,
    text_config_to_hf,
)
from mres_jax.models.qwen2_vl.config import VisionConfig
from mres_jax.models.qwen2_vl.convert import (
    vision_config_from_hf,
    vision_config_to_hf,
    vision_keys,
)
from mres_jax.models.siglip.config import NAFLEX, NaflexConfig
from mres_jax.models.siglip.convert import (
    IGNORED as SIGLIP_IGNORED,
    NAFLEX_TYPE,
    RENAMES as SIGLIP_RENAMES,
    naflex_config_from_hf,
    naflex_config_to_hf,
    siglip_keys,
)

MODEL_TYPE, ARCHITECTURE = "llava_qwen", "LlavaQwenForCausalLM"
PROCESSOR = "Qwen2VLProcessor"  # of its pictures; its own code has none
TOWER_PREFIX = "model.vision_tower.vision_tower."
TOWER_NAME = "qwen2vit-665m-patch14-native"
# The released tower, which a config.json only names.
RELEASED_TOWER = dict(depth=32, embed_dim=1280, num_heads=16, hidden_size=1536)
NAFLEX_NAME = "siglip2-{}-patch16-naflex"
BESIDE = Beside(
    name="the vision tower",
    folder="vision_tower",
    prefix=f"{TOWER_PREFIX}vision_model.",
    renames=(*SIGLIP_RENAMES, (r"^vision_model\.", "")),
    ignored=SIGLIP_IGNORED,
)
# Fields of the released training code that change nothing when the model runs.
_TRAINING_FIELDS = """
freeze_mm_mlp_adapter freeze_mm_vision_resampler image_aspect_ratio image_crop_resolution
image_grid_pinpoints image_split_resolution max_num_patches mm_newline_position
mm_patch_merge_type mm_projector_lr mm_resampler_type mm_spatial_pool_mode
mm_spatial_pool_stride mm_tunable_parts mm_vision_select_feature mm_vision_tower_lr
pos_skipping_range tokenizer_model_max_length tokenizer_padding_side tune_mm_mlp_adapter
tune_mm_vision_resampler unfreeze_mm_vision_tower use_mm_proj use_pos_skipping
vision_tower_pretrained
"""


def key_table(config: NativeResLlavaConfig) -> KeyTable:
    """Keys of a NativeRes-LLaVA."""
    is_naflex = isinstance(config.vision_config, NaflexConfig)
    return KeyTable(
        keys=(
            *_tower_keys(config.vision_config),
            *linear_keys("model.mm_projector.0", "projector.up"),
            *linear_keys("model.mm_projector.2", "projector.down"),
            *TEXT_KEYS,
        ),
        renames=(
            (r"^model\.language_model\.", "model."),
            (r"^model\.vision_tower\.(?!vision_tower\.)", TOWER_PREFIX),
        ),
        ignored=(*IGNORED, r"\.vision_model\.head\.") if is_naflex else IGNORED,
        tied=TIED,
        beside=(BESIDE,) if is_naflex else (),
    )


def config_from_hf(
    content: Mapping[str, Any], preprocessor: Mapping[str, Any] | None = None
) -> NativeResLlavaConfig:
    """Returns the configuration in a `config.json`; see `qwen2_vl.convert.config_from_hf`."""
    fields = Fields(content, "config.json")
    fields.expect("model_type", (MODEL_TYPE,))
    fields.expect("mm_vision_select_layer", (-1,))
    fields.expect("mm_use_im_start_end", (False,))
    fields.expect("mm_use_im_patch_token", (False,))
    fields.ignore(_TRAINING_FIELDS.split())
    vision = fields.child("vision_config")
    try:
        tower = _tower(fields, vision, preprocessor or {})
        config = NativeResLlavaConfig(
            vision_config=tower,
            text_config=text_config_from_hf(fields, tie_word_embeddings=is_tied(fields, fields)),
            **{
                name: fields.get(name, getattr(NativeResLlavaConfig, name), kind)
                for name, kind in _own_fields().items()
            },
        )
    except ValueError as error:  # sizes that do not go together
        raise as_checkpoint_error(error) from error
    fields.expect("mm_hidden_size", (config.mm_hidden_size,))
    vision.close()
    fields.close()
    return config


def config_to_hf(config: NativeResLlavaConfig) -> dict[str, Any]:
    """Returns a `config.json` with the released fields, and ours for what those leave open."""
    return {
        "architectures": [ARCHITECTURE],
        "model_type": MODEL_TYPE,
        **text_config_to_hf(config.text_config),
        "mm_vision_tower": _tower_name(config.vision_config),
        "mm_hidden_size": config.mm_hidden_size,
        "mm_vision_select_layer": -1,
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        **{name: getattr(config, name) for name in _own_fields()},
        "vision_config": _tower_to_hf(config.vision_config),
    }


def check_export(config: NativeResLlavaConfig) -> None:
    """Does nothing: every variant fits, since only this library reads the files."""
    del config


def _own_fields() -> dict[str, type]:
    return {
        "mm_projector_type": str,
        "image_token_id": int,
        "min_image_tokens": int,
        "max_image_tokens": int,
    }


def _tower(
    fields: Fields, vision: Fields, preprocessor: Mapping[str, Any]
) -> VisionConfig | NaflexConfig:
    """The tower's sizes: stated, or those of a released tower that a path names."""
    path = fields.get("mm_vision_tower", "", str)
    if vision.content.get("model_type") == NAFLEX_TYPE:
        return naflex_config_from_hf(vision, preprocessor)
    if vision.content:
        return vision_config_from_hf(vision, preprocessor)
    name = path.rstrip("/").rpartition("/")[2].lower()
    for size in NAFLEX:
        if name == NAFLEX_NAME.format(size):
            return naflex_config_from_hf(Fields(naflex_config_to_hf(NAFLEX[size]), name), {})
    if "qwen2" not in name or "qwen2_5" in name or "qwen2.5" in name:
        known = ", ".join(NAFLEX_NAME.format(size) for size in NAFLEX)
        raise CheckpointError(
            f"config.json: mm_vision_tower={path!r} without a vision_config; only the Qwen2-VL "
            f"tower ({TOWER_NAME}) and {known} are known by name."
        )
    return vision_config_from_hf(Fields(RELEASED_TOWER, "the released tower"), preprocessor)


def _tower_keys(vision: VisionConfig | NaflexConfig) -> tuple[Key, ...]:
    if isinstance(vision, NaflexConfig):
        return siglip_keys(vision, BESIDE.prefix, "vision")
    return tuple(vision_keys(vision, TOWER_PREFIX))


def _tower_name(vision: VisionConfig | NaflexConfig) -> str:
    if not isinstance(vision, NaflexConfig):
        return TOWER_NAME
    sizes = [size for size, config in NAFLEX.items() if config.width == vision.width]
    return NAFLEX_NAME.format(sizes[0]) if sizes else "siglip2-naflex"


def _tower_to_hf(vision: VisionConfig | NaflexConfig) -> dict[str, Any]:
    if isinstance(vision, NaflexConfig):
        return naflex_config_to_hf(vision)
    return vision_config_to_hf(vision)

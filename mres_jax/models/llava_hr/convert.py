"""LLaVA-HR to and from its released files: configuration fields and keys.

transformers has no class for this model. Keys are those of the released code, whose ConvNeXt calls
the layer scale `weight`. Its `config.json` names both towers; sizes, adapters and fusion that it
leaves open are fields of ours (`vision_config`, `vision_config_slow`, `adapter`). A file may lack
the towers: they are read from the folders `vision_tower` and `vision_tower_slow` then, in the
naming of Hugging Face's CLIP, and of timm or open_clip.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mres_jax.errors import CheckpointError
from mres_jax.models.clip.convert import clip_config_to_hf, clip_keys
from mres_jax.models.convnext.config import ConvNeXtConfig, convnext_large, convnext_xxlarge
from mres_jax.models.convnext.convert import (
    IGNORED as CONVNEXT_IGNORED,
    RENAMES as CONVNEXT_RENAMES,
    convnext_keys,
    named,
)
from mres_jax.models.hf_fields import Fields, as_checkpoint_error, pixel_values
from mres_jax.models.key_table import Beside, Key, KeyTable
from mres_jax.models.layers import linear_keys
from mres_jax.models.llama.convert import (
    IGNORED,
    KEYS as TEXT_KEYS,
    llama_config_from_hf,
    llama_config_to_hf,
)
from mres_jax.models.llava.convert import BESIDE as CLIP_BESIDE, expect_released, released_clip
from mres_jax.models.llava_hr.config import DualConfig, LlavaHRConfig, released_low
from mres_jax.nn.mr_adapter import MRAdapterOptions

MODEL_TYPE, ARCHITECTURE = "llava", "LlavaLlamaForCausalLM"
PROCESSOR = "LlavaProcessor"
VISION = "model.vision_tower."
LOW = f"{VISION}fast_vision_tower.vision_tower.vision_model."
HIGH = f"{VISION}slow_vision_tower.vision_tower."
CLIP_NAME = "openai/clip-vit-large-patch14-336"
HIGH_NAMES = {
    "convnext_large_mlp.clip_laion2b_ft_320": convnext_large(),
    "convnext_xxlarge.clip_laion2b_soup": convnext_xxlarge(),
}


def key_table(config: LlavaHRConfig) -> KeyTable:
    """Keys of a LLaVA-HR."""
    vision = config.vision_config
    return KeyTable(
        keys=(
            *clip_keys(vision.low, LOW, "vision.low"),
            *convnext_keys(vision.high, HIGH, "vision.high"),
            *(key for i in range(vision.num_adapters) for key in _adapter_keys(vision, i)),
            *linear_keys(f"{VISION}align_stages.0.fast_proj", "vision.fusion.low"),
            *linear_keys(f"{VISION}align_stages.0.slow_proj", "vision.fusion.high"),
            *linear_keys("model.mm_projector.0", "projector.up"),
            *linear_keys("model.mm_projector.2", "projector.down"),
            *TEXT_KEYS,
        ),
        renames=((r"(slow_vision_tower\..*)\.gamma$", r"\1.weight"),),
        ignored=(*IGNORED, r"slow_vision_tower\.vision_tower\.head\.", r"position_ids$"),
        beside=(
            dataclasses.replace(CLIP_BESIDE, name="the low-resolution tower", prefix=LOW),
            Beside(
                name="the high-resolution tower",
                folder="vision_tower_slow",
                prefix=HIGH,
                renames=CONVNEXT_RENAMES,
                ignored=CONVNEXT_IGNORED,
            ),
        ),
    )


def _adapter_keys(vision: DualConfig, number: int) -> list[Key]:
    """Keys of one adapter of the released form."""
    hf, ours = f"{VISION}align_stages_latent.{number}", f"vision.adapters.{number}"
    c, d = vision.high.out_size, vision.low.hidden_size
    return [
        *linear_keys(f"{hf}.slow_conv", f"{ours}.source.first", tail=(c, 1, 1)),
        *linear_keys(f"{hf}.slow_proj", f"{ours}.source.last", tail=(c, 1, 1)),
        *linear_keys(f"{hf}.fast_conv", f"{ours}.target.first", tail=(1, 7, 7)),
        *linear_keys(f"{hf}.fast_proj", f"{ours}.target.last", tail=(d, 1, 1)),
        *linear_keys(f"{hf}.gate.0", f"{ours}.gate_up"),
        *linear_keys(f"{hf}.gate.2", f"{ours}.gate_down"),
    ]


def config_from_hf(
    content: Mapping[str, Any], preprocessor: Mapping[str, Any] | None = None
) -> LlavaHRConfig:
    """Returns the configuration in a `config.json`."""
    fields = Fields(content, "config.json")
    fields.expect("model_type", ("llava", "llava_llama"))
    fields.expect("is_multipath_encoder", (True,))
    expect_released(fields)
    # The released code ignores both: all layers run, and there is no class token to keep.
    fields.ignore(("mm_vision_select_layer", "mm_vision_select_feature"))
    try:
        config = LlavaHRConfig(
            vision_config=_dual(fields, preprocessor or {}),
            text_config=llama_config_from_hf(fields, tie_word_embeddings=False),
            image_token_index=fields.get("image_token_index", -1, int),
            image_aspect_ratio=fields.get("image_aspect_ratio", "square", str),
        )
    except ValueError as error:
        raise as_checkpoint_error(error) from error
    fields.expect("mm_hidden_size", (config.vision_config.low.hidden_size,))
    fields.close()
    return config


def _dual(fields: Fields, preprocessor: Mapping[str, Any]) -> DualConfig:
    adapter = fields.child("adapter")
    choices = {
        field.name: adapter.get(field.name, field.default, str)
        for field in dataclasses.fields(MRAdapterOptions)
    }
    usual = 0 if fields.get("freeze_vision", False, bool) else DualConfig.num_adapters
    dual = DualConfig(
        low=released_clip(
            fields,
            preprocessor,
            feature_layer=-1,
            class_token=False,
            position_resize=fields.get("position_resize", released_low().position_resize, str),
        ),
        high=_high(fields),
        input_image_size=fields.size("input_image_size"),
        num_adapters=adapter.get("num_adapters", usual, int),
        adapter=MRAdapterOptions(**choices),
        direction=adapter.get("direction", DualConfig.direction, str),
        final_fusion=adapter.get("final_fusion", DualConfig.final_fusion, str),
    )
    adapter.close()
    return dual


def _high(fields: Fields) -> ConvNeXtConfig:
    """The ConvNeXt that a file names, or that our `vision_config_slow` gives the sizes of."""
    own, name = fields.child("vision_config_slow"), fields.get("vision_tower_slow", "", str)
    if not own.content:
        return named(name, "config.json: vision_tower_slow")
    sizes = {key: tuple(own.require(key, list)) for key in ("depths", "hidden_sizes")}
    for key, numbers in sizes.items():
        if not all(type(n) is int and 1 <= n <= 2**16 for n in numbers):
            raise CheckpointError(f"{own.where}: {key} is {list(numbers)}, not four counts.")
    nowhere = Fields({}, own.where)  # the image processor is the ViT's
    config = ConvNeXtConfig(
        **sizes,
        layer_norm_eps=own.get("layer_norm_eps", ConvNeXtConfig.layer_norm_eps, float),
        mlp_ratio=own.size("mlp_ratio", ConvNeXtConfig.mlp_ratio),
        kernel_size=own.size("kernel_size", ConvNeXtConfig.kernel_size),
        layer_scale_init_value=own.get(
            "layer_scale_init_value", ConvNeXtConfig.layer_scale_init_value, float
        ),
        image_mean=pixel_values(own, nowhere, "image_mean", ConvNeXtConfig.image_mean),
        image_std=pixel_values(own, nowhere, "image_std", ConvNeXtConfig.image_std),
    )
    own.close()
    return config


def config_to_hf(config: LlavaHRConfig) -> dict[str, Any]:
    """Returns a `config.json` with the released fields, and ours for what those leave open."""
    vision = config.vision_config
    names = [name for name, known in HIGH_NAMES.items() if known == vision.high]
    adapter = dataclasses.asdict(vision.adapter) | {
        "num_adapters": vision.num_adapters,
        "direction": vision.direction,
        "final_fusion": vision.final_fusion,
    }
    content = {
        "architectures": [ARCHITECTURE],
        "model_type": MODEL_TYPE,
        **llama_config_to_hf(config.text_config),
        "is_multipath_encoder": True,
        "input_image_size": vision.input_image_size,
        "freeze_vision": not vision.num_adapters,
        "image_aspect_ratio": config.image_aspect_ratio,
        "mm_vision_tower": CLIP_NAME,
        "vision_tower_slow": names[0] if names else "convnext",
        "mm_hidden_size": vision.low.hidden_size,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "use_mm_proj": True,
        "image_token_index": config.image_token_index,
        "adapter": adapter,
    }
    if vision.low != released_low():
        content["vision_config"] = clip_config_to_hf(vision.low)
    if vision.low.position_resize != released_low().position_resize:
        content["position_resize"] = vision.low.position_resize
    if not names:
        content["vision_config_slow"] = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(vision.high).items()
        }
    return content


def check_export(config: LlavaHRConfig) -> None:
    """Raises `CheckpointError` for a variant whose parts the released code has no keys for."""
    vision = config.vision_config
    problems = []
    if vision.direction != DualConfig.direction:
        problems.append(f"direction={vision.direction}")
    if vision.final_fusion != DualConfig.final_fusion:
        problems.append(f"final_fusion={vision.final_fusion}")
    released = MRAdapterOptions()
    for field in dataclasses.fields(MRAdapterOptions):
        value = getattr(vision.adapter, field.name)
        if value != getattr(released, field.name):
            problems.append(f"{field.name}={value}")
    if vision.num_adapters not in (0, DualConfig.num_adapters):
        problems.append(f"num_adapters={vision.num_adapters}")
    if config.image_aspect_ratio == "native":
        problems.append("image_aspect_ratio=native")
    if problems:
        raise CheckpointError(
            f"export: the released code of LLaVA-HR has no {' and no '.join(problems)}. Keep this "
            "model as a checkpoint of ours."
        )

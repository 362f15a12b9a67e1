"""ConvNeXt: file keys in the naming of timm, with open_clip's and transformers' read as well."""

from typing import Any

from mres_jax.errors import CheckpointError
from mres_jax.models.convnext.config import (
    STEM,
    ConvNeXtConfig,
    convnext_large,
    convnext_xxlarge,
)
from mres_jax.models.key_table import Key
from mres_jax.models.layers import linear_keys, norm_keys

# Everything behind the trunk is a classifier, or CLIP's way out of it.
IGNORED = (r"(^|\.)head\.", r"^visual\.head\.", r"^(?!visual\.)(transformer|token_embedding)\.")
RENAMES = (
    (r"^visual\.trunk\.", ""),  # open_clip
    (r"\.gamma$", ".weight"),  # timm; LLaVA-HR renamed the layer scale
    (r"^(convnext\.)?embeddings\.patch_embeddings\.", "stem.0."),  # transformers
    (r"^(convnext\.)?embeddings\.layernorm\.", "stem.1."),
    (r"^(convnext\.)?encoder\.stages\.", "stages."),
    (r"\.downsampling_layer\.", ".downsample."),
    (r"\.layers\.(\d+)\.dwconv\.", r".blocks.\1.conv_dw."),
    (r"\.layers\.(\d+)\.layernorm\.", r".blocks.\1.norm."),
    (r"\.layers\.(\d+)\.pwconv([12])\.", r".blocks.\1.mlp.fc\2."),
    (r"\.layers\.(\d+)\.layer_scale_parameter$", r".blocks.\1.weight"),
)


def convnext_keys(config: ConvNeXtConfig, prefix: str, ours: str) -> tuple[Key, ...]:
    """Keys of a trunk under `prefix`; `ours` names our module."""
    rows = [
        *linear_keys(f"{prefix}stem.0", f"{ours}.stem", tail=(3, STEM, STEM)),
        *norm_keys(f"{prefix}stem.1", f"{ours}.stem_norm"),
    ]
    kernel = (1, config.kernel_size, config.kernel_size)
    for stage in range(len(config.depths)):
        hf, own = f"{prefix}stages.{stage}", f"{ours}.stages.{stage}"
        if stage:
            before = config.hidden_sizes[stage - 1]
            rows += norm_keys(f"{hf}.downsample.0", f"{own}.norm")
            rows += linear_keys(f"{hf}.downsample.1", f"{own}.down", tail=(before, 2, 2))
        hf, own = f"{hf}.blocks.{{i}}", f"{own}.blocks"
        rows.append(Key(hf=f"{hf}.weight", ours=f"{own}.scale"))
        rows += linear_keys(f"{hf}.conv_dw", f"{own}.conv", tail=kernel)
        rows += norm_keys(f"{hf}.norm", f"{own}.norm")
        rows += linear_keys(f"{hf}.mlp.fc1", f"{own}.mlp.fc1")
        rows += linear_keys(f"{hf}.mlp.fc2", f"{own}.mlp.fc2")
    return tuple(rows)


def named(name: str, where: Any) -> ConvNeXtConfig:
    """The sizes of a trunk that a file names, in the naming of timm or open_clip.

    Raises:
      CheckpointError: it is neither ConvNeXt-L nor ConvNeXt-XXL.
    """
    if "convnext_xxlarge" in name:
        return convnext_xxlarge()
    if "convnext_large" in name:
        return convnext_large()
    raise CheckpointError(
        f"{where}: the ConvNeXt {name!r} is not known by name; have convnext_large_mlp, "
        "convnext_xxlarge."
    )

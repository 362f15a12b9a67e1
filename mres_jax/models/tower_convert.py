"""Vision towers to and from Hugging Face: the fields and keys that all of them have alike."""

from collections.abc import Mapping, Sequence
from typing import Any

from mres_jax.errors import CheckpointError
from mres_jax.models.hf_fields import MAX_LAYERS, Fields, pixel_values
from mres_jax.models.key_table import Key
from mres_jax.models.layers import linear_keys, norm_keys
from mres_jax.models.tower_config import TowerConfig

ACTIVATIONS = ("quick_gelu", "gelu", "gelu_pytorch_tanh", "silu")


def shared_tower_fields(
    fields: Fields,
    preprocessor: Mapping[str, Any],
    defaults: type[TowerConfig],
    sizes: Sequence[str],
) -> dict[str, Any]:
    """Reads the fields of `TowerConfig` and the counts of `sizes`, which must be there.

    Args:
      fields: `vision_config`.
      preprocessor: `preprocessor_config.json`, whose mean and std of the pixels win.
      defaults: a family's class, for what the file leaves open.
      sizes: the family's names of widths.
    """
    patch_size = _side(fields, "patch_size", defaults.patch_size)
    fields.expect("spatial_patch_size", (patch_size,))
    fields.ignore(("rope_parameters",))  # base 10,000 and two axes in every release
    channels = fields.get("in_channels", fields.get("in_chans", 3, int), int)
    pixels = Fields(preprocessor, "preprocessor_config.json")
    return {
        "depth": fields.size("depth", most=MAX_LAYERS),
        **{name: fields.size(name) for name in ("num_heads", *sizes)},
        "patch_size": patch_size,
        "spatial_merge_size": fields.size("spatial_merge_size", defaults.spatial_merge_size),
        "temporal_patch_size": _side(fields, "temporal_patch_size", defaults.temporal_patch_size),
        "in_channels": channels,
        "image_mean": pixel_values(fields, pixels, "image_mean", defaults.image_mean),
        "image_std": pixel_values(fields, pixels, "image_std", defaults.image_std),
    }


def shared_tower_fields_to_hf(config: TowerConfig, names: Sequence[str]) -> dict[str, Any]:
    """The fields of `TowerConfig` and those of `names`; pixel values where they are not the usual.

    Tuples become lists.
    """
    usual = type(config)
    pixels = {"image_mean": usual.image_mean, "image_std": usual.image_std}
    own = [name for name, value in pixels.items() if getattr(config, name) != value]
    sizes = ("depth", "num_heads", "patch_size", "spatial_merge_size", "temporal_patch_size")
    values = {name: getattr(config, name) for name in (*sizes, "in_channels", *names, *own)}
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in values.items()
    }


def tower_keys(
    config: TowerConfig,
    prefix: str,
    *,
    mlp: Mapping[str, str],
    mergers: Mapping[str, str],
    merger: Mapping[str, str],
) -> list[Key]:
    """Keys of a tower under `prefix`, in the order of files; rows of what it lacks are left out.

    Args:
      config: for the extents of a patch.
      prefix: of the file keys.
      mlp: linear layers of a feed-forward block, file name -> ours.
      mergers: modules that make visual tokens, file name -> ours.
      merger: their parts, `norm`, `up` and `down`, file name -> ours.
    """
    patch = (config.in_channels, config.temporal_patch_size, *2 * (config.patch_size,))
    rows = [
        Key(
            hf="patch_embed.proj.weight",
            ours="patch_embed.kernel",
            transform="transpose",
            tail=patch,
        ),
        Key(hf="patch_embed.proj.bias", ours="patch_embed.bias"),
        Key(hf="pos_embed.weight", ours="pos_embed.embedding"),
    ]
    for norm in ("norm1", "norm2"):
        rows += norm_keys(f"blocks.{{i}}.{norm}", f"blocks.{norm}")
    for name in ("qkv", "proj"):
        rows += linear_keys(f"blocks.{{i}}.attn.{name}", f"blocks.attn.{name}")
    for hf, ours in mlp.items():
        rows += linear_keys(f"blocks.{{i}}.mlp.{hf}", f"blocks.mlp.{ours}")
    for outer, own_outer in mergers.items():
        for hf, ours in merger.items():
            make = norm_keys if ours == "norm" else linear_keys
            rows += make(f"{outer}.{hf}", f"{own_outer}.{ours}")
    return [
        Key(hf=prefix + r.hf, ours="vision." + r.ours, transform=r.transform, tail=r.tail)
        for r in rows
    ]


def _side(fields: Fields, name: str, default: int) -> int:
    """A size that some files write as a pair of equal numbers."""
    value = fields.get(name, default, (int, list))
    sides = value if isinstance(value, list) else [value]
    if not sides or any(type(side) is not int or side != sides[0] or side < 1 for side in sides):
        raise CheckpointError(f"{fields.where}: {name} is {value!r}, not one size.")
    return sides[0]

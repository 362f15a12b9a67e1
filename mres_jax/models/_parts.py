"""A part of a model out of the files of another, to put together what nobody released."""

import dataclasses
import os
import pathlib
from collections.abc import Iterable
from typing import Any

from mres_jax.errors import CheckpointError
from mres_jax.models._description import CONFIG
from mres_jax.models._detect import detect
from mres_jax.models._families import family_in
from mres_jax.models._hub import resolve
from mres_jax.models.clip import convert as clip
from mres_jax.models.convnext import convert as convnext
from mres_jax.models.files import check_local, read_json
from mres_jax.models.hf_fields import Fields
from mres_jax.models.key_table import KeyTable, Parameters, flatten
from mres_jax.models.llama import convert as llama
from mres_jax.models.qwen2 import convert as qwen2
from mres_jax.models.siglip import convert as siglip
from mres_jax.models.weights import ShardingRule, load_weights


def load_part(model: str, part: Parameters, *, sharding: ShardingRule | None = None) -> Parameters:
    """Returns the parameters of `part`, in its types, from the Hugging Face files of a model.

    Args:
      model: directory or hub id of a model of a known family, of a Qwen2 or Llama decoder alone,
        of a CLIP, of a SigLIP2-NaFlex, or of a ConvNeXt of timm.
      part: an `nnx.State` under the paths of our models: `text...`, `vision...`.
      sharding: where each lies, from dotted path and shape; None takes one device.

    Raises:
      CheckpointError: no such model, or its files lack a parameter or have another shape.
    """
    directory = resolve(model)
    if detect(directory) != "huggingface":
        raise CheckpointError(
            f"{directory}: parts are read from Hugging Face directories; `mres convert` makes one."
        )
    check_local(directory)
    names = list(flatten(part))
    table = _table(pathlib.Path(directory), names)
    rows = {key.ours for key in table.keys}
    if absent := [name for name in names if name not in rows]:
        raise CheckpointError(f"{directory}: such a model has no {absent[0]}.")
    table = dataclasses.replace(table, partial=True)
    return load_weights(directory, part, table, sharding=sharding)


def _table(directory: pathlib.Path, names: Iterable[str]) -> KeyTable:
    content = read_json(directory / CONFIG)
    kind = content.get("model_type")
    if kind == "qwen2":
        return KeyTable(keys=qwen2.KEYS, ignored=qwen2.IGNORED, tied=qwen2.TIED)
    if kind in llama.MODEL_TYPES:
        return KeyTable(keys=llama.KEYS, ignored=llama.IGNORED)
    if kind in ("clip", clip.MODEL_TYPE):
        return _clip(content, _owner(names))
    if kind in ("siglip2", siglip.NAFLEX_TYPE):
        return _naflex(content, _owner(names))
    if str(content.get("architecture")).startswith("convnext"):
        config = convnext.named(content["architecture"], directory / CONFIG)
        return KeyTable(
            keys=convnext.convnext_keys(config, "", _owner(names)),
            renames=convnext.RENAMES,
            ignored=convnext.IGNORED,
        )
    family = family_in(content, directory / CONFIG)
    return family.key_table(family.config_from_hf(content))


def _clip(content: dict[str, Any], owner: str) -> KeyTable:
    fields = Fields(content.get("vision_config") or content, CONFIG)
    config = clip.clip_config_from_hf(fields, {})
    keys = clip.clip_keys(config, "vision_model.", owner)
    return KeyTable(keys=keys, renames=clip.RENAMES, ignored=clip.IGNORED)


def _naflex(content: dict[str, Any], owner: str) -> KeyTable:
    fields = Fields(content.get("vision_config") or content, CONFIG)
    config = siglip.naflex_config_from_hf(fields, {})
    keys = siglip.siglip_keys(config, "vision_model.", owner)
    return KeyTable(keys=keys, renames=siglip.RENAMES, ignored=siglip.IGNORED)


def _owner(names: Iterable[str]) -> str:
    """The module that all these parameters belong to: what their names have in common."""
    parts = [name.split(".")[:-1] for name in names]
    return ".".join(os.path.commonprefix(parts))

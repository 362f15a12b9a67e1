"""A part of a model out of the files of another, to put together what nobody released."""

import dataclasses
import pathlib

from mres_jax.errors import CheckpointError
from mres_jax.models._description import CONFIG
from mres_jax.models._detect import detect
from mres_jax.models._families import family_named
from mres_jax.models._hub import resolve
from mres_jax.models.files import check_local, read_json
from mres_jax.models.key_table import KeyTable, Parameters, flatten
from mres_jax.models.qwen2 import convert as qwen2
from mres_jax.models.weights import load_weights


def load_part(model: str, part: Parameters) -> Parameters:
    """Returns the parameters of `part`, in its types, from the Hugging Face files of a model.

    Args:
      model: directory or hub id of a model of a known family, or of a Qwen2 decoder alone.
      part: an `nnx.State` under the paths of our models: `text...`, `vision...`.

    Raises:
      CheckpointError: no such model, or its files lack a parameter or have another shape.
    """
    directory = resolve(model)
    if detect(directory) != "huggingface":
        raise CheckpointError(
            f"{directory}: parts are read from Hugging Face directories; `mres convert` makes one."
        )
    check_local(directory)
    table = _table(pathlib.Path(directory))
    rows = {key.ours for key in table.keys}
    if absent := [name for name in flatten(part) if name not in rows]:
        raise CheckpointError(f"{directory}: such a model has no {absent[0]}.")
    return load_weights(directory, part, table)


def _table(directory: pathlib.Path) -> KeyTable:
    content = read_json(directory / CONFIG)
    if content.get("model_type") == "qwen2":
        table = KeyTable(keys=qwen2.KEYS, ignored=qwen2.IGNORED, tied=qwen2.TIED)
    else:
        family = family_named(content.get("model_type"), directory / CONFIG)
        table = family.key_table(family.config_from_hf(content))
    return dataclasses.replace(table, partial=True)

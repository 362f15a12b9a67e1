"""Summaries of long runs of the demo, kept with the package: what few live questions cannot show.

A record is the `results.json` of `mres demo --questions 1400 --seed 2026`, and holds for the very
weights that it was made with: another model, a newer `mres-tiny` too, has none until it is made.
"""

import hashlib
import json
import pathlib
from typing import Any

import jax
import numpy as np
from flax import nnx

from mres_jax.evaluation.summary import Summary, from_json

FOLDER = pathlib.Path(__file__).parent


def fingerprint(model: nnx.Module) -> str:
    """Returns 16 hexadecimal digits of the names, types and values of a model's weights."""
    digest = hashlib.sha256()
    for path, value in sorted(nnx.to_flat_state(nnx.state(model, nnx.Param)), key=lambda x: x[0]):
        array = np.asarray(jax.device_get(value[...]))
        digest.update(f"{path} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def find_record(model: nnx.Module, *, folder: pathlib.Path = FOLDER) -> Summary | None:
    """Returns the record of a model's very weights, or None where none is kept.

    Args:
      model: that will be asked.
      folder: with records, `*.json`.

    Raises:
      MresError: a file that is no record.
    """
    mine = fingerprint(model)
    for path in sorted(folder.glob("*.json")):
        content: dict[str, Any] = json.loads(path.read_text())
        summary = from_json(content["answers"], source=path.name)
        if summary.made.get("fingerprint") == mine:
            return summary
    return None

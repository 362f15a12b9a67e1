"""Runs over meshes of processors' devices that start from a model on disk, as JSON.

python init_over_meshes.py DIR '{"fsdp": 2, "tensor": 2}' ...

One row per mesh and kind of start: bytes of the model, the most that one device held of it when all
of it was read, and how many parameters are not those on disk.
"""

import collections
import json
import math
import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mres_jax import nn, testing
from mres_jax.config import MeshConfig, Run
from mres_jax.data.tokenizer import FILE as TOKENIZER_FILE
from mres_jax.models.registry import convert
from mres_jax.training import meshes, warm_start
from mres_jax.training.checkpoints import Checkpoints
from mres_jax.training.input.documents import document_tokenizer
from mres_jax.training.setup import CHECKPOINTS, set_up_abstractly

Start = str | dict[str, str]


def filled(run: Run, seed: int) -> Any:
    """A state of the run with random numbers in it: nothing is compiled."""
    draw = np.random.default_rng(seed)
    state = set_up_abstractly(run, run.schedule).state
    return jax.tree.map(lambda x: jnp.asarray(draw.normal(size=x.shape), x.dtype), state)


def save_models(run: Run, folder: pathlib.Path) -> tuple[list[Any], dict[str, Start]]:
    """A checkpoint of ours and what else can be made of it, with the parameters in it."""
    assets = {TOKENIZER_FILE: document_tokenizer().to_bytes()}
    checkpoints = Checkpoints(folder / "ours" / CHECKPOINTS, keep=1, assets=assets)
    state = filled(run, 0)
    checkpoints.save(state, step=1, run=run)
    convert(folder / "ours", folder / "theirs")
    theirs = str(folder / "theirs")
    parts = {part: theirs for part in ("vision", "projector", "text")}
    return leaves(state.params), {"ours": str(folder / "ours"), "theirs": theirs, "parts": parts}


def leaves(state: Any) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(state)]


def held() -> collections.Counter:
    """Bytes of every device."""
    counts: collections.Counter = collections.Counter()
    for array in jax.live_arrays():
        share = math.prod(array.sharding.shard_shape(array.shape)) * array.dtype.itemsize
        for device in array.sharding.device_set:
            counts[device] += share
    return counts


def start(run: Run, model: Start, mesh: Any, expected: list[np.ndarray]) -> list[int]:
    """A row of the above."""
    state = filled(run, 1)
    state = jax.device_put(state, nn.state_shardings(state, mesh))
    before, most, fill = held(), [], warm_start.fill_state

    def watched(state: Any, trees: Any) -> Any:
        most.append(max((held() - before).values()))
        return fill(state, trees)

    warm_start.fill_state = watched
    try:
        found = warm_start.restore_params(model, state, config=run.model, mesh=mesh)
    finally:
        warm_start.fill_state = fill
    pairs = zip(expected, leaves(found.params), strict=True)
    wrong = sum(not np.array_equal(a, b) for a, b in pairs)
    places = nn.state_shardings(found, mesh)
    assert jax.tree.all(jax.tree.map(lambda x, place: x.sharding == place, found, places))
    return [sum(x.nbytes for x in expected), most[0], wrong]


def main(folder: str, *sizes: str) -> None:
    jax.config.update("jax_num_cpu_devices", 4)
    run = testing.tiny_run(folder)
    expected, models = save_models(run, pathlib.Path(folder))
    rows = []
    for size in sizes:
        config = MeshConfig(**json.loads(size))
        mesh = meshes.mesh_of(config, jax.devices()[: config.size])
        with jax.set_mesh(mesh):
            rows += [start(run, model, mesh, expected) for model in models.values()]
    print(json.dumps(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])

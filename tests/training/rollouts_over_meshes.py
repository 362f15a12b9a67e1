"""Runs of two steps that draw rollouts of their own on one device and over meshes, as JSON.

python rollouts_over_meshes.py DIR '{"sequence": 2}' ...

Allocator and backbone learn from what each run drew where it learns. The first run has no mesh;
all meshes take the same number of devices. Over the last one that has `fsdp` a further run gathers
the backbone once for the answers of a step. DIR is for the runs.
"""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from flax import nnx
from over_meshes import check_spread, set_up_devices
from rl_over_meshes import learning_both, made, watching

from mres_jax.config import AllocatorRun, MeshConfig
from mres_jax.testing.runs import rows_without_clocks
from mres_jax.training import meshes
from mres_jax.training.allocator import loop, parts as rl_parts
from mres_jax.training.allocator.learner import Decisions
from mres_jax.training.metrics import read_rows


def run_once(
    run: AllocatorRun, parts: rl_parts.Parts, folder: pathlib.Path, mesh: MeshConfig
) -> dict[str, Any]:
    """Returns what the run drew, how far the learner's ratios were from 1, and what it wrote."""
    checkpoint = dataclasses.replace(run.checkpoint, dir=str(folder))
    run = dataclasses.replace(run, mesh=mesh, checkpoint=checkpoint)
    found: dict[str, list] = {"tokens": [], "logprobs": [], "off": []}

    def note(learning: rl_parts.Learning, batches: Sequence[Any]) -> None:
        for batch in made(batches):
            mask = np.asarray(batch.loss_mask)
            drawn = np.asarray(batch.sampled_logprobs)[mask]
            ratios = np.exp(np.asarray(_logprobs(learning.module, batch))[mask] - drawn)
            if not isinstance(batch, Decisions):
                found["tokens"] += np.asarray(batch.pack.targets)[mask].tolist()
            found["logprobs"] += drawn.tolist()
            found["off"].append(float(np.abs(ratios - 1).max(initial=0.0)))
        if mesh.size > 1:
            here = meshes.make_mesh(mesh)
            assert here is not None
            check_spread(learning.state, here)

    with watching(note):
        loop.train_allocator(run, parts=parts, log=lambda line: None)
    return found | {
        "rows": rows_without_clocks(folder),
        "rollouts": read_rows(folder / loop.ROLLOUTS),
    }


@nnx.jit
def _logprobs(learner: Any, batch: Any) -> Any:
    found = learner.logprobs(batch)
    return found[0] if isinstance(batch, Decisions) else found


def main(directory: str, *sizes: str) -> None:
    folder = pathlib.Path(directory)
    configs = [MeshConfig(**json.loads(size)) for size in sizes]
    set_up_devices(configs[0].size)
    run, parts = learning_both(folder, clips_per_pack=1)
    cells = [(run, mesh) for mesh in [MeshConfig(), *configs]]
    gathering = dataclasses.replace(run, gather_for_answers=True)
    cells += [(gathering, mesh) for mesh in configs if mesh.fsdp > 1][-1:]
    found = []
    for number, (each, mesh) in enumerate(cells):
        found.append(run_once(each, parts, folder / str(number), mesh))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])

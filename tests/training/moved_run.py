"""A run that begins on a mesh of eight devices and ends on one, its losses as JSON.

python moved_run.py DIR
"""

import dataclasses
import json
import pathlib
import sys

import jax

from mres_jax import testing
from mres_jax.config import Evaluate, MeshConfig
from mres_jax.training.loop import train

EVALUATE = Evaluate(every_steps=2, num_packs=1, num_questions=2, num_samples=0, max_new_tokens=2)


def main(directory: str) -> None:
    jax.config.update("jax_num_cpu_devices", 8)
    whole = testing.tiny_run(directory, accumulation=4, evaluate=EVALUATE)
    begun = dataclasses.replace(
        whole,
        mesh=MeshConfig(data=2, fsdp=2, tensor=2),
        schedule=dataclasses.replace(whole.schedule, num_steps=2),
    )
    for run in (begun, whole):
        train(run, log=lambda line: None)
    found = {}
    for name in ("metrics", "evaluations"):
        lines = pathlib.Path(directory, f"{name}.jsonl").read_text().splitlines()
        found[name] = [json.loads(line)["loss"] for line in lines]
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])

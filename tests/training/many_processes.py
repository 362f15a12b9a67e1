"""One of the processes of a run, or a run alone; what it trained on goes into its directory.

python many_processes.py DIR DEVICES [NAME=JSON ...]

DEVICES are of this process; `JAX_COORDINATOR_ADDRESS` and its like make it one of several. A NAME
is a field of the run, `clips` (a folder of rows to train on), `sleep` (s before each step), `stuck`
(the step before which process 1 hangs) or `life`, the number of this start.
"""

import json
import os
import pathlib
import sys
import time
from typing import Any

import jax

from mres_jax import testing
from mres_jax.config import Evaluate, MeshConfig, Rows
from mres_jax.data.types import Rung
from mres_jax.training import hosts, loop
from mres_jax.training.input.documents import document_tokenizer


def note_trained(directory: str, *, life: int, sleep: float, stuck: int | None) -> None:
    """Has every step write the packs that this process answers for, and wait before it."""
    counted, step = loop._Steps._counted, loop.Step.__call__
    latest: list[Any] = []

    def note(self: Any, batch: Any) -> Any:
        latest[:] = counted(self, batch)
        return latest

    def slow(self: Any, state: Any, *packs: Any) -> Any:
        number = int(state.step) + 1
        time.sleep(3600 if number == stuck and jax.process_index() == 1 else sleep)
        with pathlib.Path(directory, f"trained.{life}.{jax.process_index()}").open("a") as file:
            for fed in latest:
                members = [list(map(int, member)) for member in fed.members]
                file.write(json.dumps([number, fed.epoch, fed.place, members]) + "\n")
        return step(self, state, *packs)

    loop._Steps._counted = note
    loop.Step.__call__ = slow


def about_clips(folder: str) -> dict[str, Any]:
    """Fields of a run over rows about clips and pictures, one to a pack."""
    return {
        "model": testing.tiny_config("qwen2_vl", document_tokenizer()),
        "data": (Rows(path=f"{folder}/rows.json", images=folder, fps=4.0),),
        "ladder": (Rung(max_patches=64, max_tokens=128, max_views=4, max_examples=1),),
        "policies": {"budget:16": 1.0},
    }


def main(directory: str, devices: str, *settings: str) -> None:
    jax.config.update("jax_num_cpu_devices", int(devices))
    pairs = (setting.split("=", 1) for setting in settings)
    fields: dict[str, Any] = {name: json.loads(value) for name, value in pairs}
    watched = {"life": 0, "sleep": 0.0, "stuck": None}
    note_trained(directory, **{name: fields.pop(name, x) for name, x in watched.items()})
    if hosts.ADDRESS in os.environ:
        hosts.join(heartbeat=10)
    if "clips" in fields:
        fields |= about_clips(fields.pop("clips"))
    for name, kind in {"mesh": MeshConfig, "evaluate": Evaluate}.items():
        if name in fields:
            fields[name] = kind(**fields[name])
    loop.train(
        testing.tiny_run(directory, accumulation=4, aux_loss_weight=0.0, **fields),
        log=lambda line: print(line, flush=True),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

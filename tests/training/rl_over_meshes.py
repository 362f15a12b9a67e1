"""Losses of an allocator, and of a backbone beside it, from recorded rollouts, as JSON.

python rl_over_meshes.py allocator|both DIR '{"fsdp": 2, "tensor": 2}' ...
python rl_over_meshes.py moved DIR

The rollouts are those of a run on one device; the first row is that of a single device without a
mesh. `moved` is a whole run of two steps, answered by a stand-in: its metrics on one device, and
those of a run whose first step is taken on a mesh of four. DIR is for the runs.
"""

import contextlib
import json
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh
from over_meshes import check_spread, print_rows, set_up_devices

from mres_jax import testing
from mres_jax.config import AllocatorRun, BackboneTraining, MeshConfig, OptimizerConfig
from mres_jax.resolution.allocator.beta import Beta
from mres_jax.testing.allocator_runs import (
    WIDTH,
    FirstFrameReader,
    MeanEyes,
    tiny_allocator_run,
    write_questions,
)
from mres_jax.testing.runs import rows_without_clocks
from mres_jax.training.allocator import loop, parts as rl_parts
from mres_jax.training.allocator.draws import pack_clips
from mres_jax.training.allocator.learner import Decisions
from mres_jax.training.learner import Deferred

Updates = list[tuple[str, list[Any]]]  # who learns, and from what
EVEN = "def pay(answer, row): return float(answer.token_ids[0] % 2 == 0)"  # tells answers apart
NAMES = ("policy_loss", "concentration", "similarity", "backbone_loss")


def draw_updates(run) -> Updates:
    """Three updates of the allocator from actions of its first policy, with random advantages."""
    draw, updates = np.random.default_rng(0), []
    for _ in range(3):
        batches = []
        for _ in range(4):
            features = draw.normal(size=(3, 64, WIDTH)), draw.normal(size=(5, WIDTH))
            clips = pack_clips([features, features], max_clips=2)
            shape = run.allocations, len(clips.segment_ids)
            logits = draw.normal(size=shape).astype(np.float32)
            start = Beta(np.full(shape, 2.0, np.float32), np.full(shape, 2.0, np.float32))
            advantages = draw.normal(size=shape).astype(np.float32)
            mask = np.broadcast_to(clips.segment_ids > 0, shape)
            logprobs = np.asarray(start.log_density(logits))
            batches.append(Decisions(clips, logits, logprobs, advantages, mask))
        updates.append(("allocator", batches))
    return updates


def made(batches: Sequence[Any]) -> list[Any]:
    """Packs of an update, whether they were made yet or not."""
    return [batch.make() if isinstance(batch, Deferred) else batch for batch in batches]


def record_updates(run, parts) -> Updates:
    """What both learn from in a run on one device."""
    updates: Updates = []

    def note(_: rl_parts.Learning, batches: Sequence[Any]) -> None:
        kind = "allocator" if isinstance(batches[0], Decisions) else "backbone"
        updates.append((kind, made(batches)))

    with watching(note):
        loop.train_allocator(run, parts=parts, log=lambda line: None)
    return updates


@contextlib.contextmanager
def watching(note: Callable[[rl_parts.Learning, Sequence[Any]], None]) -> Iterator[None]:
    """Has every update noted before it is taken."""
    update = rl_parts.Learning.update

    def noted(self: rl_parts.Learning, batches: Any) -> Any:
        note(self, batches)
        return update(self, batches)

    rl_parts.Learning.update = noted
    try:
        yield
    finally:
        rl_parts.Learning.update = update


def learning_both(folder: pathlib.Path, **changes: Any) -> tuple[AllocatorRun, rl_parts.Parts]:
    """A run whose backbone learns too, paid for what tells answers apart."""
    tiny = testing.tiny_qwen2_vl(spread=2.0)
    pay, rows = folder / "pay.py", write_questions(folder, count=8)
    pay.write_text(EVEN)
    learning = BackboneTraining(optimizer=OptimizerConfig(learning_rate=1e-3))
    settings = {"prompts": 8, "reward": f"{pay}:pay", "backbone_training": learning} | changes
    run = tiny_allocator_run(folder / "run", rows, **settings)
    return run, rl_parts.Parts(tiny.model, tiny.spec, tiny.tokenizer, MeanEyes())


def losses(run, parts, updates: Updates, mesh: Mesh | None) -> list[float]:
    """Of the recorded updates, taken over a mesh."""
    parts = rl_parts.lend_parts(run, parts, mesh) if parts else parts
    learning = {"allocator": rl_parts.set_up_allocator(run, mesh)}
    if run.backbone_training is not None:
        learning["backbone"] = rl_parts.set_up_backbone(run, parts, mesh)
    found = []
    for kind, batches in updates:
        metrics = learning[kind].update(batches)
        found += [metrics[name] for name in NAMES if name in metrics]
    if mesh is not None:
        for each in learning.values():
            check_spread(each.state, mesh)
    return found


def moved(folder: pathlib.Path) -> None:
    """Prints the numbers of both runs; the second has a save, held-out answers and a restart."""
    set_up_devices(4)
    tokenizer = testing.tiny_tokenizer()
    spec, pay = testing.tiny_spec(tokenizer), folder / "pay.py"
    parts = rl_parts.Parts(None, spec, tokenizer, MeanEyes(), FirstFrameReader(spec))
    rows = write_questions(folder, count=5)
    pay.write_text("def pay(answer, row): return float(int(answer.text) >= 6)")
    found = []
    for name, meshes in (
        ("alone", (MeshConfig(), MeshConfig())),
        ("moved", (MeshConfig(fsdp=2, tensor=2), MeshConfig())),
    ):
        for steps, mesh in enumerate(meshes, start=1):
            settings = {"prompts": 4, "clips_per_pack": 2, "held_out": 1, "reward": f"{pay}:pay"}
            run = tiny_allocator_run(folder / name, rows, steps=steps, mesh=mesh, **settings)
            loop.train_allocator(run, parts=parts, log=lambda line: None)
        metrics = rows_without_clocks(folder / name)
        found.append([x for row in metrics for x in row.values()])
    print(json.dumps([[x for x in each if isinstance(x, float)] for each in found]))


def main(kind: str, directory: str, *sizes: str) -> None:
    folder = pathlib.Path(directory)
    if kind == "moved":
        moved(folder)
        return
    set_up_devices()
    if kind == "allocator":
        rows = write_questions(folder, count=8)
        run, parts = tiny_allocator_run(folder / "run", rows, prompts=8, clips_per_pack=2), None
        updates = draw_updates(run)
    else:
        run, parts = learning_both(folder, clips_per_pack=2)
        updates = record_updates(run, parts)
    print_rows(lambda mesh: losses(run, parts, updates, mesh), sizes)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Trains an allocator by rewards; a restart goes on where it stopped, bit for bit."""

import contextlib
import json
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from mres_jax.config import AllocatorRun, to_json
from mres_jax.data.rows import QuestionRow
from mres_jax.errors import BadRowError, RunError
from mres_jax.files import check_directory, write_together
from mres_jax.inference.allocators import mean_scales
from mres_jax.inference.patience import ServerGoneError
from mres_jax.models.checkpoint_io import absolute
from mres_jax.models.manifest import list_steps
from mres_jax.nn import gather_once
from mres_jax.resolution.allocator.network import AllocatorNetwork
from mres_jax.resolution.allocator.store import save_allocator
from mres_jax.training import meshes
from mres_jax.training.allocator.advantages import Judged, judge
from mres_jax.training.allocator.backbone import pack_rollouts
from mres_jax.training.allocator.batches import pack_decisions
from mres_jax.training.allocator.draws import Drawn, draw_allocations, pack_clips
from mres_jax.training.allocator.features import FOLDER, FeatureCache
from mres_jax.training.allocator.measures import costs_of, crowding, measure, split_frames
from mres_jax.training.allocator.parts import (
    Learning,
    Parts,
    check_parts,
    fill,
    lend_parts,
    make_answerer,
    model_facts,
    open_parts,
    sampling_of,
    set_up_allocator,
    set_up_backbone,
    trees_of,
)
from mres_jax.training.allocator.prompts import (
    Prompt,
    open_in_order,
    open_prompt,
    open_questions,
    order_of_step,
)
from mres_jax.training.allocator.records import (
    ROLLOUTS,
    BadRows,
    draw_allocation,
    write_rollouts,
)
from mres_jax.training.allocator.resuming import (
    RUN_FILE,
    answered,
    backbone_of,
    check_same_run,
    is_unpublished,
)
from mres_jax.training.allocator.rewarding import check_payable, open_reward
from mres_jax.training.allocator.rollouts import Group, collect
from mres_jax.training.allocator.served import Link
from mres_jax.training.allocator.validation import validate
from mres_jax.training.checkpoints import restore_checkpoint, save_checkpoint
from mres_jax.training.interrupts import Stop
from mres_jax.training.metrics import (
    Writers,
    drop_rows_after,
    open_writers,
)
from mres_jax.training.setup import CHECKPOINTS
from mres_jax.training.skips import SkipGuard

ALLOCATOR, STRIPS = "allocator", "strips"


class TrainedAllocator(NamedTuple):
    """What a run leaves in memory."""

    network: AllocatorNetwork
    step: int


def train_allocator(
    run: AllocatorRun, *, parts: Parts | None = None, log: Callable[[str], None] = print
) -> TrainedAllocator:
    """Trains to `run.schedule.num_steps`, on from the newest checkpoint in `run.checkpoint.dir`.

    Writes `run.json`, `metrics.jsonl`, `evaluations.jsonl`, `rollouts.jsonl`, strips of frames,
    checkpoints, and the allocator itself in `allocator/`. SIGTERM and Ctrl-C save before they end.

    Args:
      run: what to train.
      parts: its models, where they are in memory already.
      log: takes a line.

    Raises:
      ConfigError: the directory holds another run; parts that do not fit.
      RunError: a reward that is no number, too many updates skipped in a row, a row that cannot be
        read with `data.on_bad="raise"`, or the disk is full. A server that is gone for longer than
        `server.patience` (`ServerGoneError`): what was learned until then is saved.
    """
    mesh = meshes.make_mesh(run.mesh)
    with contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh):
        return _train(run, parts, mesh, log)


def _train(
    run: AllocatorRun, parts: Parts | None, mesh: Mesh | None, log: Callable[[str], None]
) -> TrainedAllocator:
    directory = check_directory(run.checkpoint.dir)
    check_same_run(directory, run)
    link = Link(directory, run.server.patience, log)
    parts = open_parts(run, mesh, link) if parts is None else lend_parts(run, parts, mesh)
    check_parts(run, parts)
    if mesh is not None:
        log(f"{run.name}: {mesh.size} devices, {run.mesh}")
    steps = _Steps(run, parts, mesh, directory, log, link)
    first = steps.restore()
    write_together(directory, {RUN_FILE: to_json(run).encode()})
    last = steps.run(first)
    return TrainedAllocator(steps.allocator.module.network, last)


class _Steps:
    """The steps of a run."""

    def __init__(
        self,
        run: AllocatorRun,
        parts: Parts,
        mesh: Mesh | None,
        directory: pathlib.Path,
        log: Callable[[str], None],
        link: Link,
    ):
        self.settings, self.parts, self.directory, self.log = run, parts, directory, log
        self.link, self.mesh, self.done, self.saved = link, mesh, 0, 0
        self.reward, self.sampling = open_reward(run.reward, run.rules), sampling_of(run)
        self.rows = open_questions(run.data)
        check_payable([*self.rows.train, *self.rows.held_out], run.reward, run.rules)
        self.features = FeatureCache(parts.eyes, directory / FOLDER, name=run.eyes)
        self.allocator = set_up_allocator(run, mesh)
        self.backbone = set_up_backbone(run, parts, mesh)
        self.answerer = make_answerer(run, parts)
        self.guards, self.bad = _guards(run, log), BadRows(directory, log)

    def restore(self) -> int:
        """Reads the newest checkpoint, if there is one, and returns its step."""
        root = absolute(self.directory / CHECKPOINTS)
        if not list_steps(root):
            return 0
        fallback = self.settings.checkpoint.fallback
        found = restore_checkpoint(root, trees_of(self.allocator, self.backbone), fallback=fallback)
        fill(self.allocator, self.backbone, found.trees)
        return found.step

    def run(self, first: int) -> int:
        """Takes the steps that are left and returns the last one taken."""
        run, last = self.settings, self.settings.schedule.num_steps or 0
        drop_rows_after(self.directory / ROLLOUTS, first)
        self.bad.begin(first)
        self.log(
            f"{run.name}: steps {first} to {last}, {len(self.rows.train)} questions and "
            f"{len(self.rows.held_out)} held out, {run.prompts} x {run.allocations} x "
            f"{run.rollouts} rollouts a step, in {self.directory}"
        )
        self.done = first
        self._saved_at(first)
        with Stop() as stop, open_writers(run, first=first, log=self.log) as writers:
            self.link.begin(lambda: stop.asked is not None)
            try:
                self._take(range(first + 1, last + 1), stop, writers)
            except ServerGoneError:
                if self.done > self.saved:
                    self._save(self.done)
                if self.done > first:
                    self._publish(self.done, writers, ask=False)
                if not stop.asked:
                    raise
            if stop.asked:
                self.log(f"{run.name}: stopped by {stop.asked} after step {self.done}; saved")
        return self.done

    def _take(self, steps: range, stop: Stop, writers: Writers) -> None:
        """Takes steps until one is told to stop; counts them in `done`."""
        if self.done and self._is_unpublished(self.done):
            self._publish(self.done, writers)
        for step in steps:
            row = self.step(step)
            writers.row("train", row)
            self.done = step
            self._tell(row, step)
            is_end = step == steps[-1] or stop.asked is not None
            if is_end or step % self.settings.checkpoint.every_steps == 0:
                self._save(step)
                self.link.replies.forget()  # not where a step is cut: it takes them again
                self._publish(step, writers, ask=stop.asked is None)  # which takes its time
            if stop.asked:
                return

    def step(self, step: int) -> dict[str, Any]:
        """One step: questions, allocations, answers, rewards, updates. Returns its metrics."""
        run, start = self.settings, time.perf_counter()
        order = order_of_step(self.rows.train, step, count=run.prompts, seed=run.seed)
        prompts = open_in_order(order, lambda row: self._open(row, step), count=run.prompts)
        names = [f"{prompt.row.id}@{step}.{place}" for place, prompt in enumerate(prompts)]
        features = [self._features(prompt) for prompt in prompts]
        drawn = draw_allocations(
            self.allocator.split,
            features,
            names,
            count=run.allocations,
            seed=run.seed,
            clips_per_pack=run.clips_per_pack,
            mesh=self.mesh,
        )
        with self._answering() as answerer:
            groups = collect(
                prompts,
                names,
                drawn,
                answerer,
                self.parts.spec,
                self.reward,
                rollouts=run.rollouts,
                sampling=self.sampling,
                seed=run.seed,
            )
        costs, asked = costs_of(groups, run), time.perf_counter()
        judged = judge(groups, costs, run)
        row: dict[str, Any] = {"step": step, "bad_rows": self.bad.count}
        row |= measure(groups, drawn, costs, judged.capo, run) | judged.counts
        row |= self._learn(step, groups, features, drawn, judged)
        write_rollouts(self.directory, step, groups, judged)
        if step % run.strip_every == 0:
            strip = draw_allocation(
                prompts[0], split_frames(drawn.means, groups)[0], self.parts.spec
            )
            write_together(self.directory / STRIPS, {f"step_{step:06d}.png": strip})
        count = run.prompts * run.allocations * run.rollouts
        row["rollouts_per_s"] = count / (asked - start)
        return row | {"seconds": time.perf_counter() - start, "time": time.time()}

    def _learn(
        self, step: int, groups: list[Group], features: list, drawn: Drawn, judged: Judged
    ) -> dict[str, Any]:
        """Takes the updates of a step and returns their metrics, of the first and of the last.

        A part changes nothing of who keeps none of its questions.
        """
        run, size = self.settings, self.settings.prompts // self.settings.updates
        settings, metrics, updates = run.backbone_training, {}, 0
        for at in range(0, run.prompts, size):
            part, found = list(range(at, at + size)), {}
            if judged.kept[part].any():
                batches = pack_decisions(part, groups, features, drawn, judged, run)
                found |= self._update("allocator", self.allocator, batches, step)
            here = [i for i in part if judged.kept_backbone[i]]
            if here and self.backbone is not None and settings and step % settings.every == 0:
                rollouts = pack_rollouts(
                    [groups[i] for i in here],
                    [judged.backbone[i] for i in here],
                    self.answerer,
                    ladder=settings.ladder,
                )
                found |= {
                    name if name.startswith("backbone_") else f"backbone_{name}": value
                    for name, value in self._update(
                        "backbone", self.backbone, rollouts, step
                    ).items()
                }
            updates += bool(found)
            metrics |= {f"{k}_last" if k in metrics else k: v for k, v in found.items()}
        return {"updates": updates} | {k: v for k, v in metrics.items() if "objective" not in k}

    def _update(self, name: str, learner: Learning, batches: list, step: int) -> dict[str, float]:
        found = learner.update(batches)
        self.guards[name].add(step, found)
        self.guards[name].settle()
        return found

    def _saved_at(self, step: int) -> None:
        self.saved = step
        for guard in self.guards.values():
            guard.saved = step

    def _save(self, step: int) -> None:
        run, facts = self.settings, model_facts(self.settings, self.parts)
        facts["extra"] = facts.get("extra", {}) | {"run": json.loads(to_json(run))}
        save_checkpoint(
            self.directory / CHECKPOINTS,
            trees_of(self.allocator, self.backbone),
            step=step,
            keep=run.checkpoint.keep,
            **facts,
        )
        self._saved_at(step)

    def _is_unpublished(self, step: int) -> bool:
        is_answered = not self.rows.held_out or answered(self.directory, step) is not None
        return not is_answered or is_unpublished(self.directory / ALLOCATOR, step)

    def _publish(self, step: int, writers: Writers, *, ask: bool = True) -> None:
        """Leaves the allocator, with what came of the held-out questions where they are asked."""
        run = self.settings
        kept: dict[str, Any] = {"run": run.name, "backbone": backbone_of(run)}
        kept |= {"wire": run.wire, "step": step}
        if self.rows.held_out and ask:
            point = answered(self.directory, step)
            if point is None:
                point = self._validate(step)
                writers.row("held_out", point)
            kept |= {k: v for k, v in point.items() if k not in ("step", "time", "seconds")}
        network = self.allocator.module.network
        save_allocator(self.directory / ALLOCATOR, network, features=run.eyes, facts=kept)

    def _validate(self, step: int) -> dict[str, Any]:
        run, start = self.settings, time.perf_counter()
        with self._answering() as answerer:
            point = validate(
                self.rows.held_out,
                lambda row: self._open(row, step, held_out=True),
                self._mean_scales,
                answerer,
                self.parts.spec,
                self.reward,
                run,
            )
        self.log(
            f"step {step:5d} held out: accuracy {point['accuracy']:.3f} at retention "
            f"{point['retention']:.3f}; one fixed scale {point['fixed_accuracy']:.3f} at "
            f"{point['fixed_retention']:.3f} ({point['questions']} questions)"
        )
        seconds = time.perf_counter() - start
        return {"step": step, **point, "seconds": seconds, "time": time.time()}

    @contextlib.contextmanager
    def _answering(self) -> Iterator[Any]:
        """The answerer with the backbone's newest weights, gathered meanwhile if the run says so.

        The gathered copy is dropped behind it: what follows needs its memory.
        """
        if self.parts.answerer is not None:
            yield self.answerer
            return
        generator = self.answerer.generator
        model = self.parts.model if self.backbone is None else self.backbone.module.model
        generator.model = gather_once(model) if self.settings.gather_for_answers else model
        try:
            yield self.answerer
        finally:
            generator.model = model

    def _mean_scales(self, prompt: Prompt) -> np.ndarray:
        clips = pack_clips([self._features(prompt)], max_clips=1)
        return mean_scales(self.allocator.module.network, clips)[: len(prompt.frames)]

    def _open(self, row: QuestionRow, step: int, *, held_out: bool = False) -> Prompt | None:
        """None where its pixels cannot be read."""
        data = self.settings.data
        try:
            wire, times = self.settings.wire, self.settings.times
            return open_prompt(row, data, self.parts.spec, wire=wire, times=times)
        except BadRowError as error:
            if data.on_bad == "raise":
                raise RunError(f"data: {data.path}: {error}") from None
            self.bad.note(step, error, held_out=held_out)
            return None

    def _features(self, prompt: Prompt) -> tuple[np.ndarray, np.ndarray]:
        return self.features.features(prompt.frames, prompt.row.prompt)

    def _tell(self, row: dict[str, Any], step: int) -> None:
        if warning := crowding(row, self.settings):
            self.log(warning)
        if step % self.settings.log_every == 0:
            self.log(
                f"step {step:5d}  reward {row['reward']:.3f}  retention {row['retention']:.3f}  "
                f"scale {row['scale']:.2f} ± {row['scale_spread']:.2f}  dropped "
                f"{row['groups_dropped']}/{row['groups']}  {row['seconds']:.1f} s  "
                f"{row['rollouts_per_s']:.1f} rollouts/s"
            )


def _guards(run: AllocatorRun, log: Callable[[str], None]) -> dict[str, SkipGuard]:
    """One of each that may learn."""
    fields = {"allocator": "optimizer", "backbone": "backbone_training.optimizer"}
    return {
        name: SkipGuard(run.max_skipped, log, learner=name, optimizer=field)
        for name, field in fields.items()
    }

"""A run tested as it trains: held-out loss, scored answers, a few of them kept with pictures.

It reads the state and changes nothing of it, so a run trains the same with it and without.
"""

import functools
import json
import math
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mres_jax.config import Run
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.tokenizer import Tokenizer
from mres_jax.data.types import Pack
from mres_jax.data.views import render_view
from mres_jax.errors import ConfigError
from mres_jax.files import write_together
from mres_jax.inference.answer import LocalAnswerer
from mres_jax.inference.show import show_views
from mres_jax.protocols import Answer, Clip, Sampling
from mres_jax.scoring import anls, exact_match
from mres_jax.training import hosts
from mres_jax.training.input.held_out import Question, open_held_out
from mres_jax.training.learner import Share, TrainState
from mres_jax.training.metrics import FILES, Writers, read_rows

SAMPLES = "samples"  # directory in that of the run
ROWS = 16  # answers decoded at a time; a signal is heard in between


def check_questions(run: Run) -> None:
    """Refuses questions where a run has several processes.

    Raises:
      ConfigError: with what to do instead.
    """
    if hosts.are_several() and run.evaluate is not None and run.evaluate.num_questions:
        raise ConfigError(
            f"run: evaluate.num_questions={run.evaluate.num_questions} answers are written by one "
            "process alone, here are several. Take --evaluate.num_questions=0, and mres eval on "
            "the checkpoints."
        )


class Evaluator:
    """Evaluates the state of a run with `evaluate`.

    Args:
      run: its settings.
      graphdef: static part of the learner.
      spec, tokenizer: of its model.
      last: step that the run ends with, which is evaluated too.
      log: takes a line.

    Raises:
      ConfigError: there is nothing to ask.
    """

    def __init__(
        self,
        run: Run,
        graphdef: nnx.GraphDef,
        spec: ProcessorSpec,
        tokenizer: Tokenizer,
        *,
        last: int,
        log: Callable[[str], None] = print,
    ):
        assert run.evaluate is not None
        self.settings, self.run, self.log = run.evaluate, run, log
        self.graphdef, self.spec, self.last = graphdef, spec, last
        self.directory = pathlib.Path(run.checkpoint.dir)
        self.sums = jax.jit(_summed(graphdef))
        limit = run.model.text_config.max_position_embeddings
        self.held = open_held_out(run, spec, tokenizer, max_context=limit, log=log)
        self._make_answerer = functools.partial(
            LocalAnswerer,
            spec=spec,
            tokenizer=tokenizer,
            ladder=run.ladder,
            rows=(ROWS,),
        )
        self._answerer: LocalAnswerer | None = None

    def is_due(self, step: int) -> bool:
        """Whether to evaluate after a step."""
        return step > 0 and (step % self.settings.every_steps == 0 or step == self.last)

    def is_missing(self, step: int) -> bool:
        """Whether one was due after a step, but the run was stopped in it."""
        rows = read_rows(self.directory / FILES["held_out"])
        return self.is_due(step) and all(row["step"] != step for row in rows)

    def evaluate(
        self, state: TrainState, step: int, writers: Writers, *, stopped: Callable[[], bool]
    ) -> dict[str, Any] | None:
        """Returns a row of held-out numbers, or None where it was told to stop."""
        start, held = time.perf_counter(), self.held
        loss = self._losses(state, held.packs, stopped)
        answers = self._answers(state, held.questions, stopped)
        if loss is None or answers is None:
            return None
        row = {"step": step, **loss, **_scores(held.questions, answers)}
        row |= {"seconds": time.perf_counter() - start, "time": time.time()}
        self._keep(step, list(zip(held.questions, answers, strict=True)), writers)
        writers.row("held_out", row)
        self.log(_line(row))
        return row

    def is_better(self, row: dict[str, Any], best: dict[str, Any] | None) -> bool:
        """Whether a row is ahead of the best before it in what counts."""
        name, sign = {"loss": ("loss", -1), "score": ("exact_match", 1)}[self.settings.best]
        if not math.isfinite(row[name]):
            return False
        return best is None or name not in best or sign * row[name] > sign * best[name]

    def _losses(
        self, state: TrainState, packs: Sequence[Pack], stopped: Callable[[], bool]
    ) -> dict[str, float] | None:
        """Means over all tokens of all packs."""
        total: dict[str, float] = {}
        for pack in packs:
            if stopped():
                return None
            sums = self.sums(state.params, state.frozen, pack)
            total = {name: total.get(name, 0.0) + float(x) for name, x in sums.items()}
        count = max(total.pop("count", 0.0), 1.0)
        return {name: x / count for name, x in total.items()}

    def _answers(
        self, state: TrainState, questions: Sequence[Question], stopped: Callable[[], bool]
    ) -> list[Answer] | None:
        model = nnx.merge(self.graphdef, state.params, state.frozen).model
        answerer = self._answering(model)
        sampling = Sampling(max_new_tokens=self.settings.max_new_tokens)
        answers: list[Answer] = []
        for at in range(0, len(questions), ROWS):
            if stopped():
                return None
            requests = [question.request for question in questions[at : at + ROWS]]
            answers += [some[0] for some in answerer.answer(requests, sampling=sampling)]
        return answers

    def _answering(self, model: Any) -> LocalAnswerer:
        """One answerer for all evaluations, with the newest weights."""
        if self._answerer is None:
            self._answerer = self._make_answerer(model)
        nnx.update(self._answerer.model, nnx.state(model))
        return self._answerer

    def _keep(self, step: int, asked: Sequence[tuple[Question, Answer]], writers: Writers) -> None:
        """Writes the first answers with what the model saw."""
        lines, files = [], {}
        for number, (question, answer) in enumerate(asked[: self.settings.num_samples]):
            request, views = question.request, answer.views
            shown = show_views(request.images, views, self.spec, name=f"{number:02d}")
            shown = {name: data for name, data in shown.items() if "-crop" not in name}
            sample = _sample(question, answer) | {"pictures": list(shown)}
            files |= shown
            lines.append(json.dumps(sample) + "\n")
            first = request.images[views[0].item] if views else None
            pixels = None
            if first is not None and not isinstance(first, Clip):
                pixels = render_view(first, views[0])
            writers.sample(step, f"{number:02d}", pixels, _caption(sample))
        if lines and writers.writers:
            files["samples.jsonl"] = "".join(lines).encode()
            write_together(self.directory / SAMPLES / f"step_{step:06d}", files)


def _summed(graphdef: nnx.GraphDef) -> Callable[[Any, Any, Pack], dict[str, jax.Array]]:
    """Sums over the loss tokens of a pack, and their count."""

    def sums(params: Any, frozen: Any, pack: Pack) -> dict[str, jax.Array]:
        one = Share(np.float32(1), np.float32(1))
        _, metrics = nnx.merge(graphdef, params, frozen).loss(pack, one)
        count = pack.loss_mask.astype(jnp.float32).sum()
        return {name: metrics[name] for name in ("loss", "accuracy")} | {"count": count}

    return sums


def _scores(questions: Sequence[Question], answers: Sequence[Answer]) -> dict[str, float]:
    if not questions:
        return {}
    pairs = [(a.text, [q.expected]) for q, a in zip(questions, answers, strict=True)]
    return {
        "exact_match": sum(exact_match(*pair) for pair in pairs) / len(pairs),
        "anls": sum(anls(*pair) for pair in pairs) / len(pairs),
        "questions": len(pairs),
        "visual_tokens": sum(a.cost.visual_tokens for a in answers) / len(answers),
    }


def _sample(question: Question, answer: Answer) -> dict[str, Any]:
    request, cost = question.request, answer.cost
    return {
        "id": request.id,
        "question": request.question,
        "expected": question.expected,
        "got": answer.text,
        "exact_match": exact_match(answer.text, [question.expected]),
        "policy": request.policy,
        "visual_tokens": cost.visual_tokens,
        "text_tokens": cost.text_tokens,
        "retention_ratio": cost.retention_ratio,
        "finish_reason": answer.finish_reason,
    }


def _caption(sample: dict[str, Any]) -> str:
    return (
        f"{sample['question']}  \nexpected: {sample['expected']}  \ngot: {sample['got']}  \n"
        f"{sample['policy']}, {sample['visual_tokens']} visual tokens"
    )


def _line(row: dict[str, Any]) -> str:
    names = ("loss", "accuracy", "exact_match", "anls")
    shown = " ".join(f"{name} {row[name]:.3f}" for name in names if name in row)
    asked = f" of {row['questions']} questions" if "questions" in row else ""
    return f"step {row['step']:5d} held out: {shown}{asked} ({row['seconds']:.1f} s)"

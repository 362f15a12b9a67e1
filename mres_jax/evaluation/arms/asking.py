"""The questions of a task, asked batch by batch under every policy in turn."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

from mres_jax.data.spec import ProcessorSpec
from mres_jax.errors import MresError, PolicyError
from mres_jax.evaluation.arms.folders import SAMPLES, ArmFolder, read_samples
from mres_jax.evaluation.arms.questions import AskedQuestion
from mres_jax.evaluation.arms.samples import to_line
from mres_jax.evaluation.arms.summary import summarize
from mres_jax.evaluation.arms.tasks import EvalTask, batches
from mres_jax.evaluation.benchmarks.shares import METRICS_OF_ONE_VIEW
from mres_jax.evaluation.trials import NO_PICTURE, note_compiles
from mres_jax.protocols import Answer, Answerer, Item, Request, Sampling
from mres_jax.resolution.policies import parse_policy
from mres_jax.resolution.zoom import Zoom

EVERY = 4.0  # s between two lines of progress
TRIES = 2  # of a last batch that is asked again for its time


@dataclasses.dataclass(frozen=True)
class Asker:
    """Asks batches of questions of one model.

    Attributes:
      answerer: the model.
      spec: of its processor.
      sampling: of answers.
      seed: of drawn tokens.
      suffix: behind every question.
    """

    answerer: Answerer
    spec: ProcessorSpec
    sampling: Sampling
    seed: int
    suffix: str

    def ask(
        self, batch: Sequence[AskedQuestion], items: Sequence[list[Item]], policy: str
    ) -> tuple[list[Answer], float | None]:
        """Returns answers, and ms per question, or None where something was compiled."""
        requests = [
            Request(id=question.id, question=question.text + self.suffix)
            if policy == NO_PICTURE
            else Request(
                id=question.id, images=shown, question=question.text + self.suffix, policy=policy
            )
            for question, shown in zip(batch, items, strict=True)
        ]
        with note_compiles() as compiles:
            start = time.perf_counter()
            answers = self.answerer.answer(requests, sampling=self.sampling, seed=self.seed)
            elapsed = 1e3 * (time.perf_counter() - start) / len(batch)
        return [some[0] for some in answers], None if compiles else elapsed


class Asking:
    """One task, asked of one model under several policies.

    The policies take turns, a batch each, so that pictures are opened once and a busy machine is
    unfair to none.

    Args:
      task: its questions.
      arms: policy -> its folder.
      asker: of the model.
      size: questions a batch.
      log: takes lines about what goes on.
    """

    def __init__(
        self,
        task: EvalTask,
        arms: Mapping[str, ArmFolder],
        asker: Asker,
        size: int,
        log: Callable[[str], None],
    ):
        self.task, self.arms, self.asker, self.size = task, arms, asker, size
        self.log, self.last_said = log, time.monotonic()
        self.last: tuple[list[AskedQuestion], list[list[Item]]] | None = None

    def begin(self) -> None:
        """Checks what `zoom` needs of the pictures, then opens the folders of the arms.

        Raises:
          MresError: a question that cannot be asked under a policy; a folder of another
            configuration, or damaged.
        """
        zooms = [parse_policy(policy) for policy in self.arms if policy != NO_PICTURE]
        zooms = [policy for policy in zooms if isinstance(policy, Zoom)]
        for question in self.task.draw() if zooms else ():
            for zoom in zooms:
                self._check(question, zoom)
        for arm in self.arms.values():
            arm.begin()

    def _check(self, question: AskedQuestion, zoom: Zoom) -> None:
        """Refuses before hours of answers what would end them: other policies tell at once."""
        try:
            zoom.window_in(question.sizes)
            if zoom.shows_several and question.metric in METRICS_OF_ONE_VIEW:
                raise PolicyError(
                    f"policy {zoom} shows several views, and metric {question.metric} needs one "
                    "that places are meant in. Use context=crop with one candidate."
                )
        except PolicyError as error:
            raise MresError(
                f"task {self.task.name}: question {question.id!r} cannot be asked: {error} Nothing "
                "was asked; take it out, or name another policy."
            ) from None

    def run(self, *, stopped: Callable[[], bool] = lambda: False) -> None:
        """Asks what is missing and writes the summaries; `begin` comes first.

        Args:
          stopped: asked before every batch; once it holds nothing more is asked or written.

        Raises:
          MresError: as `run_evaluation`.
        """
        unfinished = {policy: arm for policy, arm in self.arms.items() if not arm.is_complete}
        if not unfinished:
            return
        for number, batch in enumerate(batches(self.task, self.size)):
            self._ask_batch(number, batch, unfinished, stopped)
            if stopped():
                return
        for policy, arm in unfinished.items():
            self._finish(policy, arm)

    def _ask_batch(
        self,
        number: int,
        batch: list[AskedQuestion],
        arms: Mapping[str, ArmFolder],
        stopped: Callable[[], bool],
    ) -> None:
        ids = [question.id for question in batch]
        waiting = {}
        for policy, arm in arms.items():
            arm.check_batch(number, ids)
            if arm.num_done <= number * self.size:
                waiting[policy] = arm
        if not waiting:
            return
        items = [self._open(question) for question in batch]
        for policy, arm in waiting.items():
            if stopped():
                return
            answers, ms = self.asker.ask(batch, items, policy)
            lines = [
                to_line(question, answer, self.asker.spec, ms=ms)
                for question, answer in zip(batch, answers, strict=True)
            ]
            arm.append(lines, ids)
            self._say()
        self.last = batch, items

    def _open(self, question: AskedQuestion) -> list[Item]:
        try:
            return question.open(self.asker.spec)
        except MresError as error:
            done = sum(arm.num_done for arm in self.arms.values())
            raise MresError(
                f"task {self.task.name}: question {question.id!r} cannot be asked: {error} "
                f"{done:,} answers are kept; mend it, or take it out and name another out."
            ) from None

    def _say(self) -> None:
        done, total = (
            sum(getattr(arm, name) for arm in self.arms.values())
            for name in ("num_done", "num_questions")
        )
        if time.monotonic() - self.last_said > EVERY or done == total:
            self.last_said = time.monotonic()
            self.log(f"{self.task.name}: {done:,} of {total:,} answers")

    def _finish(self, policy: str, arm: ArmFolder) -> None:
        samples, _ = read_samples(arm.folder / SAMPLES)
        ms = None
        if self.last and all(sample.ms is None for sample in samples):
            for _ in range(TRIES):
                ms = self.asker.ask(*self.last, policy)[1] if ms is None else ms
        arm.complete(summarize(samples, ms=ms))

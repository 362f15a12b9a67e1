"""Packs of prompts in, tokens out: encode, prefill, decode, all in static shapes.

What is compiled depends on lengths alone: encoding and prefill on the rung of the pack, decoding on
the rows and the length of the cache, which come in steps. The numbers of the sampling, the tokens
and the stop ids are data. Over a mesh the ranks of `data` x `fsdp` take a pack each, and what is
compiled is compiled for all of them. Axes: t packed positions, s examples of a rung, m rows of a
cache, n new tokens, v visual tokens, e text width, V vocabulary.
"""

import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from mres_jax import nn
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.types import Pack, Rung
from mres_jax.errors import PromptError, RunError
from mres_jax.inference import sampling as draws
from mres_jax.inference.programs import Rules, arrange
from mres_jax.inference.turns import Asked, Completion, Job, Prompts, Ranks, Turn, Watch
from mres_jax.models.tower import Visual
from mres_jax.protocols import Sampling

ROWS = (1, 4, 16, 64)  # rows of a cache; more answers than the last are decoded in turns
MIN_CACHE = 256  # positions; longer caches double
CHUNK = 8  # tokens between two looks of a `Watch`
# Two programs run at once on a CPU can give wrong sums (jaxlib 0.10.2, Eigen's products): seen as
# another answer to the smallest picture of a pack.
ONE_AT_A_TIME = threading.Lock()
Result = TypeVar("Result")


class Generator:
    """Runs one model over packs of prompts."""

    def __init__(
        self,
        model: Any,
        spec: ProcessorSpec,
        *,
        max_context: int | None = None,
        rows: Sequence[int] = ROWS,
        reduce: Callable[[Pack, Visual], tuple[Pack, Visual]] | None = None,
    ):
        """Makes a generator; nothing is compiled before the first pack.

        Args:
          model: an assembled model; its weights are read anew at every call.
          spec: names the stop ids and the ids that are never drawn.
          max_context: positions that prompt and answer may fill together; what the decoder was
            made for when None.
          rows: sizes of the caches, ascending.
          reduce: what is left of prompts and visual tokens behind the encoder; all when None.
        """
        self.reduce = reduce
        config = model.config.text_config
        self.model, self.rows = model, tuple(rows)
        self.max_context = max_context or config.max_position_embeddings
        self.stop_ids = np.asarray(spec.eos_token_ids, np.int32)
        self.forbidden = draws.forbidden_mask(spec.reserved_token_ids, config.vocab_size)

    @property
    def at_once(self) -> int:
        """Packs of one rung that take as long as one: the ranks of the mesh in use, 1 without."""
        return 1 if self.reduce is not None else nn.num_ranks()

    def generate(
        self,
        pack: Pack,
        request_ids: Sequence[str],
        *,
        rung: Rung,
        sampling: Sampling,
        n: int = 1,
        seed: int = 0,
        watch: Watch | None = None,
    ) -> tuple[list[list[Completion]], dict[str, float]]:
        """Answers every prompt of a pack `n` times; all answers to a prompt share its prefill.

        Args:
          pack: prompts only, made for `rung`.
          request_ids: one per prompt; random keys come from (seed, id, answer, step).
          rung: static lengths of the pack.
          sampling: how tokens are drawn.
          n: answers per prompt.
          seed: changes every drawn token.
          watch: looks at the answers while they grow and may end them. Tokens and numbers are the
            same without it, to the last bit.

        Returns:
          `n` completions for each prompt, and ms by stage: `vision`, `prefill`, `decode`.

        Raises:
          PromptError: a prompt does not fit the cache together with its answer.
          RunError: the model's scores are not numbers.
        """
        (answers,), ms = self.generate_together(
            [Asked(pack, request_ids, watch)], rung=rung, sampling=sampling, n=n, seed=seed
        )
        return answers, ms

    def generate_together(
        self, asked: Sequence[Asked], *, rung: Rung, sampling: Sampling, n: int, seed: int
    ) -> tuple[list[list[list[Completion]]], dict[str, float]]:
        """Answers the prompts of up to `at_once` packs of one rung, each on its rank.

        Args:
          asked: the packs; the other arguments are those of `generate`.

        Returns:
          What `generate` does, for each pack; ms of all.

        Raises:
          MresError: as `generate`.
        """
        if not 1 <= len(asked) <= self.at_once:
            raise ValueError(f"{len(asked)} packs, {self.at_once} at once.")
        jobs = []
        for pack, request_ids, watch in asked:
            prompts = Prompts.of(pack)
            if len(request_ids) != len(prompts.starts):
                raise ValueError(f"{len(request_ids)} ids for {len(prompts.starts)} prompts.")
            for name, length in zip(request_ids, prompts.lengths, strict=True):
                self.check_length(name, int(length), sampling.max_new_tokens)
            pack = pack._replace(patch_labels={})  # they would be one more thing to compile for
            jobs.append(Job(pack, prompts, list(request_ids), watch, n))
        with ONE_AT_A_TIME:
            return self._generate(jobs, rung, sampling, seed)

    def relevance(self, pack: Pack, *, rung: Rung) -> tuple[list[np.ndarray], float]:
        """Returns how much each visual token of each prompt matters to what follows the prompt.

        That is the norm of the gradient of the log-probability of the token that greedy decoding
        would draw first, taken at the visual token and at what is added for it later (DeepStack).

        Args:
          pack: prompts only, made for `rung`.
          rung: static lengths of the pack.

        Returns:
          `float32 [v]` for each prompt, its visual tokens in their order; and the ms that it took.

        Raises:
          RunError: a gradient is not a number.
        """
        prompts = Prompts.of(pack)
        pack = pack._replace(patch_labels={})
        active = np.arange(rung.max_examples) < len(prompts.starts)
        with ONE_AT_A_TIME:
            model, _, run = arrange(self.model)
            last = prompts.last(rung)
            found, ms = _timed(run.relevance, *model, pack, last, active, self.forbidden)
        if not np.isfinite(found).all():
            raise RunError(
                "generate: the gradient of a visual token is not a number. Check the weights, or "
                "compute in float32 or bfloat16."
            )
        index, owner, found = map(np.asarray, (pack.visual_index, pack.segment_ids, found))
        seen = [(owner == i + 1) & (index >= 0) for i in range(len(prompts.starts))]
        return [found[index[where]] for where in seen], ms

    def _generate(self, jobs, rung, sampling, seed):
        ranks = Ranks(len(jobs), self.at_once)
        model, decoding, run = arrange(self.model, over_ranks=self.at_once > 1)
        pack = ranks.join([job.pack for job in jobs])
        visual, vision_ms = _timed(run.encode, *model, pack)
        if self.reduce is not None:
            pack, visual = self.reduce(pack, visual)
            (job,) = jobs
            jobs = [dataclasses.replace(job, prompts=Prompts.of(pack))]
        last = ranks.join([job.prompts.last(rung) for job in jobs])
        packed, prefill_ms = _timed(run.prefill, *model, pack, visual, last)
        done, decode_ms = [[] for _ in jobs], 0.0
        for at in range(0, max(len(job.rows) for job in jobs), self.rows[-1]):
            turns = [Turn(job, job.rows[at : at + self.rows[-1]]) for job in jobs]
            complete = functools.partial(self._complete, run, decoding, packed, ranks)
            completions, ms = _timed(complete, turns, sampling, seed)
            for own, more in zip(done, completions, strict=True):
                own += more
            decode_ms += ms
        answers = [job.by_prompt(own) for job, own in zip(jobs, done, strict=True)]
        return answers, {"vision": vision_ms, "prefill": prefill_ms, "decode": decode_ms}

    def check_length(self, name: str, prompt_tokens: int, max_new_tokens: int) -> None:
        """Raises `PromptError` unless a prompt and its answer fit the cache."""
        over = prompt_tokens + max_new_tokens - self.max_context
        if over > 0:
            raise PromptError(
                f"generate: request {name!r} has {prompt_tokens} prompt tokens and max_new_tokens="
                f"{max_new_tokens}, but the cache holds {self.max_context} (over by {over}). Give "
                "its pictures a smaller budget, shorten its text, or lower max_new_tokens."
            )

    def _complete(self, run, decoding, packed, ranks, turns, sampling, seed):
        """Completions of the rows of each turn."""
        size = _step_of(max(len(turn.rows) for turn in turns), self.rows)
        index, starts, lengths, actives, fixed = (
            ranks.join(each) for each in zip(*(turn.arrays(size) for turn in turns), strict=True)
        )
        rules = Rules(
            np.uint32(seed % 2**32),
            np.int32(sampling.max_new_tokens),
            self.stop_ids,
            self.forbidden,
            draws.Knobs.of(sampling),
        )
        kind = {"greedy": sampling.temperature == 0, "filtered": draws.is_filtered(sampling)}
        longest = max(int(turn.job.prompts.lengths.max()) for turn in turns)
        out, cache = run.start(
            *packed,
            index,
            starts,
            lengths,
            actives,
            fixed,
            rules,
            max_len=_doubled(MIN_CACHE, longest + sampling.max_new_tokens),
            size=_doubled(32, sampling.max_new_tokens),
            **kind,
        )
        decode = run.decode if size == 1 else run.decode_rows
        step, is_watched = 1, any(turn.job.watch is not None for turn in turns)
        while True:
            if is_watched:
                for turn, own in zip(turns, ranks.part(out), strict=True):
                    turn.look(own)
            running = [turn.is_going(size) for turn in turns]
            if step >= sampling.max_new_tokens or not np.any(running):
                break
            until = step + CHUNK if is_watched else sampling.max_new_tokens
            ends = np.int32(step), np.int32(until)
            going = ranks.join(running)
            out, cache = decode(*decoding, cache, out, *ends, going, fixed, rules, **kind)
            step = until
        return [turn.completions(own) for turn, own in zip(turns, ranks.part(out), strict=True)]


def _timed(run: Callable[..., Result], *args: Any) -> tuple[Result, float]:
    """The result, ready, and the ms it took."""
    start = time.perf_counter()
    result = jax.block_until_ready(run(*args))
    return result, 1e3 * (time.perf_counter() - start)


def _step_of(value: int, ladder: Sequence[int]) -> int:
    """The first step that is at least `value`, or the last."""
    return next((step for step in ladder if step >= value), ladder[-1])


def _doubled(start: int, value: int) -> int:
    """`start`, doubled until it is at least `value`."""
    while start < value:
        start *= 2
    return start

"""One pack of prompts in, tokens out: encode, prefill, decode, all in static shapes.

What is compiled depends on lengths alone: encoding and prefill on the rung of the pack, decoding on
the rows and the length of the cache, which come in steps. The numbers of the sampling, the tokens
and the stop ids are data. Axes: t packed positions, s examples of a rung, m rows of a cache,
n new tokens, v visual tokens, e text width, V vocabulary.
"""

import functools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import numpy as np

from mres_jax.data.positions import next_position
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.types import TEXT, Pack, Rung
from mres_jax.errors import PromptError, RunError
from mres_jax.inference import sampling as draws
from mres_jax.inference.programs import Out, Rows, Rules, arrange
from mres_jax.models.tower import Visual
from mres_jax.protocols import Sampling

ROWS = (1, 4, 16, 64)  # rows of a cache; more answers than the last are decoded in turns
MIN_CACHE = 256  # positions; longer caches double
CHUNK = 8  # tokens between two looks of a `Watch`
# Two programs run at once on a CPU can give wrong sums (jaxlib 0.10.2, Eigen's products): seen as
# another answer to the smallest picture of a pack.
ONE_AT_A_TIME = threading.Lock()
Result = TypeVar("Result")


@runtime_checkable
class Watch(Protocol):
    """Looks at answers while they grow, every `CHUNK` tokens; it must be quick."""

    def __call__(self, prompt: int, sample: int, token_ids: Sequence[int], /) -> bool:
        """Takes all tokens so far of an answer that goes on or has just ended.

        Args:
          prompt: index in the pack.
          sample: number of the answer to this prompt.
          token_ids: so far.

        Returns:
          Whether the answer shall end here.
        """
        ...


class Completion(NamedTuple):
    """Generated tokens of one answer; see `mres_jax.protocols.Answer`."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    entropies: tuple[float, ...]
    finish_reason: str  # `stop` or `length`

    def cut(self, length: int) -> "Completion":
        """Returns its first tokens."""
        return Completion(
            self.token_ids[:length],
            self.logprobs[:length],
            self.entropies[:length],
            self.finish_reason,
        )


class Prompts(NamedTuple):
    """Where the prompts of a pack stand, `int32 [s]` each."""

    starts: np.ndarray
    lengths: np.ndarray
    next_positions: np.ndarray  # rotary position of the first new token

    @classmethod
    def of(cls, pack: Pack) -> "Prompts":
        """Reads them off the segment ids of a pack on the host."""
        segment_ids, positions = np.asarray(pack.segment_ids), np.asarray(pack.positions)
        is_text = np.asarray(pack.visual_index) == TEXT
        lengths = np.bincount(segment_ids, minlength=1)[1:]
        ends = np.cumsum(lengths)
        starts = ends - lengths
        after = [
            next_position(positions[:, start:end], ends_in_text=bool(is_text[end - 1]))
            for start, end in zip(starts, ends, strict=True)
        ]
        return cls(*(np.asarray(x, np.int32) for x in (starts, lengths, after)))

    def last(self, rung: Rung) -> np.ndarray:
        """`int32 [s]`, the last position of each prompt; 0 for examples that are not there."""
        last = np.zeros(rung.max_examples, np.int32)
        last[: len(self.starts)] = self.starts + self.lengths - 1
        return last


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
        prompts = Prompts.of(pack)
        if len(request_ids) != len(prompts.starts):
            raise ValueError(f"{len(request_ids)} ids for {len(prompts.starts)} prompts.")
        for name, length in zip(request_ids, prompts.lengths, strict=True):
            self.check_length(name, int(length), sampling.max_new_tokens)
        pack = pack._replace(patch_labels={})  # labels would be one more thing to compile for
        with ONE_AT_A_TIME:
            return self._generate(pack, prompts, request_ids, rung, sampling, n, seed, watch)

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

    def _generate(self, pack, prompts, request_ids, rung, sampling, n, seed, watch):
        model, decoding, run = arrange(self.model)
        visual, vision_ms = _timed(run.encode, *model, pack)
        if self.reduce is not None:
            pack, visual = self.reduce(pack, visual)
            prompts = Prompts.of(pack)
        packed, prefill_ms = _timed(run.prefill, *model, pack, visual, prompts.last(rung))
        rows = [(i, sample) for i in range(len(request_ids)) for sample in range(n)]
        done, decode_ms = [], 0.0
        for at in range(0, len(rows), self.rows[-1]):
            some = rows[at : at + self.rows[-1]]
            complete = functools.partial(self._complete, run, decoding, packed, prompts)
            completions, ms = _timed(complete, request_ids, some, sampling, seed, watch)
            done += completions
            decode_ms += ms
        answers = [done[i * n : (i + 1) * n] for i in range(len(request_ids))]
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

    def _complete(self, run, decoding, packed, prompts, request_ids, rows, sampling, seed, watch):
        """Completions of `rows`, pairs of prompt index and sample."""
        pad = _step_of(len(rows), self.rows) - len(rows)
        index = np.array([i for i, _ in rows] + [0] * pad, np.int32)
        samples = np.array([sample for _, sample in rows] + [0] * pad, np.uint32)
        active = np.arange(len(index)) < len(rows)
        words = np.array([draws.request_words(name) for name in request_ids], np.uint32)
        lengths = np.where(active, prompts.lengths[index], 0).astype(np.int32)
        fixed = Rows(prompts.next_positions[index], words[index], samples)
        rules = Rules(
            np.uint32(seed % 2**32),
            np.int32(sampling.max_new_tokens),
            self.stop_ids,
            self.forbidden,
            draws.Knobs.of(sampling),
        )
        kind = {"greedy": sampling.temperature == 0, "filtered": draws.is_filtered(sampling)}
        out, cache = run.start(
            *packed,
            index,
            prompts.starts[index],
            lengths,
            active,
            fixed,
            rules,
            max_len=_doubled(MIN_CACHE, int(lengths.max()) + sampling.max_new_tokens),
            size=_doubled(32, sampling.max_new_tokens),
            **kind,
        )
        names = [request_ids[i] for i, _ in rows]
        step, ended = 1, np.zeros(len(index), bool)
        while True:
            if watch is not None:
                out = jax.device_get(out)
                ended |= _look(out, rows, names, active & ~ended, watch)
            running = active & ~ended
            if step >= sampling.max_new_tokens or not running.any():
                break
            until = sampling.max_new_tokens if watch is None else step + CHUNK
            ends = np.int32(step), np.int32(until)
            out, cache = run.decode(*decoding, cache, out, *ends, running, fixed, rules, **kind)
            step = until
        out = jax.device_get(out)
        return [_completion(out, row, names[row], bool(ended[row])) for row in range(len(rows))]


def _look(out: Out, rows, names: Sequence[str], going: np.ndarray, watch: Watch) -> np.ndarray:
    """Shows the answers that were going on to `watch`; `bool [m]`, those that end here."""
    ends = np.zeros_like(going)
    for row, (prompt, sample) in enumerate(rows):
        if going[row]:
            seen = _completion(out, row, names[row], False)
            ends[row] = watch(prompt, sample, seen.token_ids) or out.stopped[row]
    return ends


def _completion(out: Out, row: int, name: str, ended: bool) -> Completion:
    kept = slice(0, int(out.counts[row]))
    columns = (out.tokens, out.logprobs, out.entropies)
    bad = ~np.isfinite(out.logprobs[row, kept])
    if bad.any():
        raise RunError(
            f"generate: request {name!r}: the scores of token {int(bad.argmax())} are not numbers. "
            "Check the weights, or compute in float32 or bfloat16."
        )
    return Completion(
        *(tuple(column[row, kept].tolist()) for column in columns),
        finish_reason="stop" if ended or out.stopped[row] else "length",
    )


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

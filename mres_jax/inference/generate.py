"""One pack of prompts in, tokens out: encode, prefill, decode, all in static shapes.

What is compiled depends on lengths alone: encoding and prefill on the rung of the pack, decoding on
the rows and the length of the cache, which come in steps. The numbers of the sampling, the tokens
and the stop ids are data. Axes: t packed positions, s examples of a rung, m rows of a cache,
n new tokens, v visual tokens, e text width, V vocabulary.
"""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, UInt32

from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.types import Pack, Rung
from mres_jax.errors import PromptError, RunError
from mres_jax.inference import device, sampling as draws
from mres_jax.inference.cache import cache_rows
from mres_jax.nn import KVCache
from mres_jax.protocols import Sampling

ROWS = (1, 4, 16, 64)  # rows of a cache; more answers than the last are decoded in turns
MIN_CACHE = 256  # positions; longer caches double
Result = TypeVar("Result")


class Completion(NamedTuple):
    """Generated tokens of one answer; see `mres_jax.protocols.Answer`."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    entropies: tuple[float, ...]
    finish_reason: str  # `stop` or `length`


class Prompts(NamedTuple):
    """Where the prompts of a pack stand, `int32 [s]` each."""

    starts: np.ndarray
    lengths: np.ndarray
    next_positions: np.ndarray  # rotary position of the first new token

    @classmethod
    def of(cls, pack: Pack) -> "Prompts":
        """Reads them off the segment ids of a pack on the host."""
        segment_ids, positions = np.asarray(pack.segment_ids), np.asarray(pack.positions)
        lengths = np.bincount(segment_ids, minlength=1)[1:]
        starts = np.cumsum(lengths) - lengths
        after = [positions[:, a : a + n].max() + 1 for a, n in zip(starts, lengths, strict=True)]
        return cls(*(np.asarray(x, np.int32) for x in (starts, lengths, after)))


class Generator:
    """Runs one model over packs of prompts."""

    def __init__(
        self,
        model: Any,
        spec: ProcessorSpec,
        *,
        max_context: int | None = None,
        rows: Sequence[int] = ROWS,
    ):
        """Makes a generator; nothing is compiled before the first pack.

        Args:
          model: an assembled model; its weights are read anew at every call.
          spec: names the stop ids and the ids that are never drawn.
          max_context: positions that prompt and answer may fill together; what the decoder was
            made for when None.
          rows: sizes of the caches, ascending.
        """
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
    ) -> tuple[list[list[Completion]], dict[str, float]]:
        """Answers every prompt of a pack `n` times; all answers to a prompt share its prefill.

        Args:
          pack: prompts only, made for `rung`.
          request_ids: one per prompt; random keys come from (seed, id, answer, step).
          rung: static lengths of the pack.
          sampling: how tokens are drawn.
          n: answers per prompt.
          seed: changes every drawn token.

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
        model, decoding, run = _arranged(self.model)
        visual, vision_ms = _timed(run.encode, *model, pack)
        last = np.zeros(rung.max_examples, np.int32)
        last[: len(request_ids)] = prompts.starts + prompts.lengths - 1
        packed, prefill_ms = _timed(run.prefill, *model, pack, visual, last)
        rows = [(i, sample) for i in range(len(request_ids)) for sample in range(n)]
        done, decode_ms = [], 0.0
        for at in range(0, len(rows), self.rows[-1]):
            some = rows[at : at + self.rows[-1]]
            complete = functools.partial(self._complete, run, decoding, packed, prompts)
            completions, ms = _timed(complete, request_ids, some, sampling, seed)
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

    def _complete(self, run, decoding, packed, prompts, request_ids, rows, sampling, seed):
        """Completions of `rows`, pairs of prompt index and sample."""
        pad = _step_of(len(rows), self.rows) - len(rows)
        index = np.array([i for i, _ in rows] + [0] * pad, np.int32)
        samples = np.array([sample for _, sample in rows] + [0] * pad, np.uint32)
        active = np.arange(len(index)) < len(rows)
        words = np.array([draws.request_words(name) for name in request_ids], np.uint32)
        lengths = np.where(active, prompts.lengths[index], 0).astype(np.int32)
        size = _doubled(32, sampling.max_new_tokens)
        needed = int(lengths.max()) + sampling.max_new_tokens
        logits, cache = run.start(
            *packed, index, prompts.starts[index], lengths, max_len=_doubled(MIN_CACHE, needed)
        )
        out, _ = run.decode(
            *decoding,
            cache,
            logits,
            prompts.next_positions[index],
            np.uint32(seed % 2**32),
            words[index],
            samples,
            active,
            np.int32(sampling.max_new_tokens),
            self.stop_ids,
            self.forbidden,
            draws.Knobs.of(sampling),
            greedy=sampling.temperature == 0,
            filtered=draws.is_filtered(sampling),
            size=size,
        )
        out = jax.device_get(out)
        return [_completion(out, row, request_ids[i]) for row, (i, _) in enumerate(rows)]


class _Out(NamedTuple):
    """Results of decoding so far."""

    tokens: Any  # int32 [m n]
    logprobs: Any  # float32 [m n]
    entropies: Any  # float32 [m n]
    counts: Any  # int32 [m], tokens that belong to the answer
    stopped: Any  # bool [m], whether a stop token was drawn


def _completion(out: _Out, row: int, name: str) -> Completion:
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
        finish_reason="stop" if out.stopped[row] else "length",
    )


class _Programs(NamedTuple):
    """What is compiled."""

    encode: Any
    prefill: Any
    start: Any
    decode: Any


@functools.cache
def _programs(options: tuple[tuple[str, Any], ...] = ()) -> _Programs:
    jit = functools.partial(jax.jit, compiler_options=dict(options) or None)
    return _Programs(
        encode=jit(_encode, static_argnums=0),
        prefill=jit(_prefill, static_argnums=0),
        start=jit(_start, static_argnames="max_len"),
        decode=jit(
            _decode,
            static_argnums=0,
            static_argnames=("greedy", "filtered", "size"),
            donate_argnames="cache",
        ),
    )


def _arranged(model: Any) -> tuple[Any, Any, _Programs]:
    """The model for prefill and for decoding, both split, and what runs them, by device."""
    if not device.is_on_cpu(model):
        parts = nnx.split(model)
        return parts, parts, _programs()
    model = device.with_suitable_products(model)
    options = tuple(device.compiler_options(model).items())
    return nnx.split(model), nnx.split(device.with_own_layers(model)), _programs(options)


def _encode(graphdef, state, pack: Pack) -> Float[Array, "v e"]:
    """Visual tokens; none for a rung without patches."""
    model = nnx.merge(graphdef, state)
    if not pack.patches.shape[0]:
        return jnp.zeros((0, model.config.text_config.hidden_size))
    return model.encode(pack.patches, pack.patch_positions, pack.patch_segment_ids)


def _prefill(
    graphdef, state, pack: Pack, visual: Float[Array, "v e"], last: Int[Array, " s"]
) -> tuple[Float[Array, "s V"], Float[Array, "l t g k"], Float[Array, "l t g k"]]:
    """Scores after the positions `last`, and packed keys and values."""
    model = nnx.merge(graphdef, state)
    hidden, keys, values = model.prefill(pack, visual)
    return model.logits(hidden[last]), keys, values


def _start(
    logits: Float[Array, "s V"],
    keys: Float[Array, "l t g k"],
    values: Float[Array, "l t g k"],
    index: Int[Array, " m"],
    starts: Int[Array, " m"],
    lengths: Int[Array, " m"],
    *,
    max_len: int,
) -> tuple[Float[Array, "m V"], KVCache]:
    """Scores and cache of the rows; row `i` answers prompt `index[i]`."""
    return logits[index], cache_rows(keys, values, starts, lengths, max_len=max_len)


def _decode(
    graphdef,
    state,
    cache: KVCache,
    logits: Float[Array, "m V"],
    positions: Int[Array, " m"],
    seed: UInt32[Array, ""],
    words: UInt32[Array, "m 2"],
    samples: UInt32[Array, " m"],
    active: Bool[Array, " m"],
    max_new_tokens: Int[Array, ""],
    stop_ids: Int[Array, " stops"],
    forbidden: Bool[Array, " V"],
    knobs: draws.Knobs,
    *,
    greedy: bool,
    filtered: bool,
    size: int,
) -> tuple[_Out, KVCache]:
    """Draws until every row has stopped or has all its tokens."""
    model = nnx.merge(graphdef, state)
    keys = draws.row_keys(jax.random.key(seed), words, samples)
    draw = functools.partial(
        draws.draw_tokens, knobs=knobs, forbidden=forbidden, greedy=greedy, filtered=filtered
    )

    def record(out: _Out, step, drawn: draws.Draw) -> _Out:
        running = active & ~out.stopped
        return _Out(
            out.tokens.at[:, step].set(drawn.tokens),
            out.logprobs.at[:, step].set(drawn.logprobs),
            out.entropies.at[:, step].set(drawn.entropies),
            out.counts + running.astype(jnp.int32),
            out.stopped | jnp.isin(drawn.tokens, stop_ids),
        )

    def unfinished(carry):
        step, out, _ = carry
        return (step < max_new_tokens) & jnp.any(active & ~out.stopped)

    def advance(carry):
        step, out, cache = carry
        place = jnp.broadcast_to((positions + step - 1)[None], (3, positions.shape[0]))
        logits, cache = model.decode(out.tokens[:, step - 1], place, cache)
        drawn = draw(logits, draws.step_keys(keys, step))
        return step + 1, record(out, step, drawn), cache

    first = jnp.zeros((), jnp.int32)
    out = record(
        _empty(positions.shape[0], size), first, draw(logits, draws.step_keys(keys, first))
    )
    _, out, cache = jax.lax.while_loop(unfinished, advance, (first + 1, out, cache))
    return out, cache  # the cache goes back so that its donated buffers are the ones written to


def _empty(rows: int, size: int) -> _Out:
    numbers = jnp.zeros((rows, size), jnp.float32)
    counts = jnp.zeros(rows, jnp.int32)
    return _Out(numbers.astype(jnp.int32), numbers, numbers, counts, counts > 0)


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

"""The compiled parts of generation: encoding, prefill, filling the cache, decoding.

Each takes one pack or, over the ranks of a mesh, one for each of them on an axis before the others
(r); keys and values have it behind their layers. Axes as in `generate`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from mres_jax import nn
from mres_jax.data.types import Pack
from mres_jax.inference import device, sampling as draws
from mres_jax.models.tower import Visual


class Out(NamedTuple):
    """Results of decoding so far."""

    tokens: Any  # int32 [m n]
    logprobs: Any  # float32 [m n]
    entropies: Any  # float32 [m n]
    counts: Any  # int32 [m], tokens that belong to the answer
    stopped: Any  # bool [m], whether a stop token was drawn


class Rows(NamedTuple):
    """What stays the same of the rows of a cache while they are decoded."""

    positions: Any  # int32 [m], rotary position of the first new token
    words: Any  # uint32 [m 2], of the request's name
    samples: Any  # uint32 [m], number of the answer


class Rules(NamedTuple):
    """How tokens are drawn, as data: none of it is compiled for."""

    seed: Any  # uint32
    max_new_tokens: Any  # int32
    stop_ids: Any  # int32 [stops]
    forbidden: Any  # bool [V]
    knobs: draws.Knobs


_CACHE_AXES = nn.KVCache(1, 1, 0)  # pyright: ignore[reportArgumentType], where the packs are


class Programs(NamedTuple):
    """What is compiled."""

    encode: Any
    prefill: Any
    start: Any
    decode: Any  # of one row
    decode_rows: Any  # of several
    relevance: Any


@functools.cache
def jitted(
    options: tuple[tuple[str, Any], ...] = (), *, over_ranks: bool = False, apart: bool = False
) -> Programs:
    """Returns what is compiled.

    Args:
      options: for the compiler, by name; but for `decode_rows`, whose products are of few rows.
      over_ranks: of a pack for each rank of the mesh in use; `relevance` is of one pack always.
      apart: the layers of the decoder that decodes stand apart, and so does its cache.
    """
    jit = functools.partial(jax.jit, compiler_options=dict(options) or None)

    def own(call: Any, **fixed: Any) -> Any:
        made: Any = functools.partial(call, over_ranks=over_ranks, **fixed)
        made.__name__ = call.__name__  # in profiles
        return made

    def decoding(jit: Any) -> Any:
        return jit(
            own(_decode),
            static_argnums=0,
            static_argnames=("greedy", "filtered"),
            donate_argnames="cache",
        )

    return Programs(
        encode=jit(own(_encode), static_argnums=0),
        prefill=jit(own(_prefill), static_argnums=0),
        start=jit(
            own(_start, apart=apart), static_argnames=("max_len", "size", "greedy", "filtered")
        ),
        decode=decoding(jit),
        decode_rows=decoding(jax.jit),
        relevance=jit(_relevance, static_argnums=0),
    )


def arrange(model: Any, *, over_ranks: bool = False) -> tuple[Any, Any, Programs]:
    """The model for prefill and for decoding, both split, and what runs them, by device."""
    if over_ranks or not device.is_on_cpu(model):
        parts = nnx.split(model)
        return parts, parts, jitted(over_ranks=over_ranks)
    model = device.with_suitable_products(model)
    options = tuple(device.compiler_options(model).items())
    parts, own = nnx.split(model), nnx.split(device.with_own_layers(model))
    return parts, own, jitted(options, apart=True)


def _of_ranks(call: Any, over_ranks: bool, in_axes: Any = 0, out_axes: Any = 0) -> Any:
    """Of packs on their ranks, where results stay."""
    if not over_ranks:
        return call

    def placed(*args: Any) -> Any:
        return jax.tree.map(_anywhere, call(*args))

    return nn.each_pack(placed, in_axes, out_axes)


def _anywhere(x: jax.Array) -> jax.Array:
    """A result whose axes, but for that of packs, lie as XLA likes."""
    free = PartitionSpec(*[PartitionSpec.UNCONSTRAINED] * x.ndim)
    return jax.lax.with_sharding_constraint(x, free)


def _encode(graphdef, state, pack: Pack, *, over_ranks: bool) -> Visual:
    """Visual tokens; none for a rung without patches."""
    model = nn.gather(nnx.merge(graphdef, state))
    return _of_ranks(model.encode, over_ranks)(pack)


def _prefill(
    graphdef, state, pack: Pack, visual: Visual, last: Int[Array, "*r s"], *, over_ranks: bool
) -> tuple[Float[Array, "*r s V"], Float[Array, "l *r t g k"], Float[Array, "l *r t g k"]]:
    """Scores after the positions `last`, and packed keys and values."""
    model = nn.gather(nnx.merge(graphdef, state))

    def run(pack: Pack, visual: Visual, last: Int[Array, " s"]) -> Any:
        hidden, keys, values = model.prefill(pack, visual)
        return model.logits(hidden[last]), keys, values

    return _of_ranks(run, over_ranks, out_axes=(0, 1, 1))(pack, visual, last)


def _relevance(
    graphdef,
    state,
    pack: Pack,
    last: Int[Array, " s"],
    active: Bool[Array, " s"],
    forbidden: Bool[Array, " V"],
) -> Float[Array, " v"]:
    """How much each visual token moves the likeliest token after its prompt: a gradient's norm."""
    model = nnx.merge(graphdef, state)

    def score(visual: Visual) -> Float[Array, ""]:
        logits = model.logits(model.hidden(pack, visual)[last])
        best = jax.nn.log_softmax(jnp.where(forbidden, -jnp.inf, logits)).max(-1)
        return jnp.where(active, best, 0.0).sum()

    slopes = jax.tree.leaves(jax.grad(score)(model.encode(pack)))  # `[v e]`, DeepStack `[l v e]`
    squares = [jnp.square(x.astype(jnp.float32)).sum(-1) for x in slopes]
    return jnp.sqrt(sum(x.reshape(-1, x.shape[-1]).sum(0) for x in squares))


def _start(
    logits: Float[Array, "*r s V"],
    keys: Float[Array, "l *r t g k"],
    values: Float[Array, "l *r t g k"],
    index: Int[Array, "*r m"],
    starts: Int[Array, "*r m"],
    lengths: Int[Array, "*r m"],
    active: Bool[Array, "*r m"],
    rows: Rows,
    rules: Rules,
    *,
    max_len: int,
    size: int,
    greedy: bool,
    filtered: bool,
    over_ranks: bool,
    apart: bool,
) -> tuple[Out, nn.KVCache]:
    """The first token and the cache of the rows; row `i` answers prompt `index[i]`."""

    def run(logits, keys, values, index, starts, lengths, active, rows: Rows) -> Any:
        first = jnp.zeros((), jnp.int32)
        drawn = _draw(logits[index], first, rows, rules, greedy=greedy, filtered=filtered)
        out = _record(_empty(index.shape[0], size), first, drawn, active, rules)
        packed = keys, values, starts, lengths
        return out, nn.KVCache.of_pack(*packed, max_len=max_len, apart=apart)

    each = _of_ranks(run, over_ranks, (0, 1, 1, 0, 0, 0, 0, 0), (0, _CACHE_AXES))
    return each(logits, keys, values, index, starts, lengths, active, rows)


def _decode(
    graphdef,
    state,
    cache: nn.KVCache,
    out: Out,
    step: Int[Array, ""],
    until: Int[Array, ""],
    active: Bool[Array, "*r m"],
    rows: Rows,
    rules: Rules,
    *,
    greedy: bool,
    filtered: bool,
    over_ranks: bool,
) -> tuple[Out, nn.KVCache]:
    """Draws tokens `step` to `until`, or fewer where every active row has stopped before.

    Where the steps are cut changes nothing: each call of the same program goes on from `out`.
    """
    model = nnx.merge(graphdef, state)
    until = jnp.minimum(until, rules.max_new_tokens)

    def unfinished(carry):
        step, out, _ = carry
        return (step < until) & jnp.any(active & ~out.stopped)

    def advance_pack(step, out, cache, active, rows: Rows) -> tuple[Out, nn.KVCache]:
        place = jnp.broadcast_to((rows.positions + step - 1)[None], (3, active.shape[0]))
        logits, cache = model.decode(out.tokens[:, step - 1], place, cache)
        drawn = _draw(logits, step, rows, rules, greedy=greedy, filtered=filtered)
        return _record(out, step, drawn, active, rules), cache

    each = _of_ranks(advance_pack, over_ranks, (None, 0, _CACHE_AXES, 0, 0), (0, _CACHE_AXES))

    def advance(carry):
        step, out, cache = carry
        return step + 1, *each(step, out, cache, active, rows)

    _, out, cache = jax.lax.while_loop(unfinished, advance, (step, out, cache))
    return out, cache  # the cache goes back so that its donated buffers are the ones written to


def _draw(logits, step, rows: Rows, rules: Rules, *, greedy: bool, filtered: bool) -> draws.Draw:
    keys = draws.row_keys(jax.random.key(rules.seed), rows.words, rows.samples)
    return draws.draw_tokens(
        logits,
        draws.step_keys(keys, step),
        rules.knobs,
        rules.forbidden,
        greedy=greedy,
        filtered=filtered,
    )


def _record(out: Out, step, drawn: draws.Draw, active, rules: Rules) -> Out:
    running = active & ~out.stopped
    return Out(
        out.tokens.at[:, step].set(drawn.tokens),
        out.logprobs.at[:, step].set(drawn.logprobs),
        out.entropies.at[:, step].set(drawn.entropies),
        out.counts + running.astype(jnp.int32),
        out.stopped | jnp.isin(drawn.tokens, rules.stop_ids),
    )


def _empty(rows: int, size: int) -> Out:
    numbers = jnp.zeros((rows, size), jnp.float32)
    counts = jnp.zeros(rows, jnp.int32)
    return Out(numbers.astype(jnp.int32), numbers, numbers, counts, counts > 0)

"""Attention, caches and embeddings over a mesh: what XLA cannot split or splits badly, said so.

Every device computes its own heads. Outside `jax.set_mesh` these are the kernels themselves. Axes:
l layers, t rows of a pack, b packs, m rows of a cache, n new tokens, h query heads, g key/value
heads, k head width, V vocabulary, e text width.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int
from mres_kernels import (
    decode_attention as one_decode,
    extend_cache as one_more,
    varlen_attention as one_pack,
)
from mres_kernels.varlen_attention import Plan

# Inside attention both hold heads: rows of a pack that are spread over `sequence` are exchanged for
# heads before it, and back behind it (Jacobs et al., 2023, "DeepSpeed Ulysses", arXiv:2309.14509).
HEAD_AXES = ("tensor", "sequence")
PACKS = ("data", "fsdp")  # what a leading axis of packs is spread over
ROWS = "sequence"  # what the rows of one pack are spread over


def varlen_attention(
    q: Float[Array, "t h k"],
    k: Float[Array, "t g k"],
    v: Float[Array, "t g k"],
    plan: Plan,
    *,
    scale: float | None = None,
    implementation: str | None = None,
) -> Float[Array, "t h k"]:
    """See `mres_kernels.varlen_attention`."""
    call = functools.partial(one_pack, scale=scale, implementation=implementation)
    if not _is_split():
        return call(q, k, v, plan)
    heads = PartitionSpec(None, head_axes(k.shape[1]))
    return _mapped(call, (heads, heads, heads, PartitionSpec()), heads)(q, k, v, plan)


def decode_attention(
    q: Float[Array, "m n h k"],
    new_keys: Float[Array, "m n g k"],
    new_values: Float[Array, "m n g k"],
    keys: Float[Array, "*l m g max_len k"],
    values: Float[Array, "*l m g max_len k"],
    lengths: Int[Array, " m"],
    *,
    layer: int | Int[Array, ""] | None = None,
) -> Float[Array, "m n h k"]:
    """See `mres_kernels.decode_attention`."""
    arrays = q, new_keys, new_values, keys, values, lengths
    if not _is_split():
        return one_decode(*arrays, layer=layer)

    def call(layer: Array | None, *arrays: Array) -> Array:
        return one_decode(*arrays, layer=layer)

    axes, none = head_axes(keys.shape[-3]), PartitionSpec()
    heads, cache = PartitionSpec(None, None, axes), _cache_spec(keys, axes)
    return _mapped(call, (none, *[heads] * 3, cache, cache, none), heads)(layer, *arrays)


def extend_cache(
    cache: Float[Array, "*l m g max_len k"],
    new: Float[Array, "*l m g k"],
    lengths: Int[Array, " m"],
) -> Float[Array, "*l m g max_len k"]:
    """See `mres_kernels.extend_cache`."""
    if not _is_split():
        return one_more(cache, new, lengths)
    axes = head_axes(cache.shape[-3])
    whole, one = _cache_spec(cache, axes), PartitionSpec(*[None] * (new.ndim - 2), axes)
    return _mapped(one_more, (whole, one, PartitionSpec()), whole)(cache, new, lengths)


def fill_cache(
    packed: Float[Array, "l t g k"],
    starts: Int[Array, " m"],
    lengths: Int[Array, " m"],
    *,
    max_len: int,
) -> Float[Array, "l m g max_len k"]:
    """The keys or the values of a pack as rows of a cache; see `mres_jax.nn.KVCache.of_pack`."""

    def call(packed: Array, starts: Array, lengths: Array) -> Array:
        place = jnp.arange(max_len, dtype=jnp.int32)[None]
        index = jnp.minimum(starts[:, None] + place, packed.shape[1] - 1)
        filled = (place < lengths[:, None])[:, None, :, None]
        rows = jnp.take(packed, index, axis=1, mode="clip")
        return jnp.where(filled, rearrange(rows, "l m s g k -> l m g s k"), 0)

    if not _is_split():
        return call(packed, starts, lengths)
    axes = head_axes(packed.shape[2])
    heads, none = PartitionSpec(None, None, axes), PartitionSpec()
    return _mapped(call, (heads, none, none), heads)(packed, starts, lengths)


def lookup(
    table: Float[Array, "V e"], tokens: Int[Array, "*b"], spec: PartitionSpec, dtype: DTypeLike
) -> Float[Array, "*b e"]:
    """Rows of a table of embeddings, in `dtype`.

    Over a mesh the table is never gathered: each device looks up the tokens of all that share its
    channels in its own part, and they exchange the results. XLA left alone would copy them whole.

    Args:
      table: parameter.
      tokens: which rows.
      spec: how the table lies on the mesh.
      dtype: of the result.
    """
    if not _is_split() or tokens.ndim != 1 or not any(spec):
        return table[tokens].astype(dtype)

    @jax.custom_batching.custom_vmap
    def one(table: Array, tokens: Array) -> Array:
        return table[tokens].astype(dtype)

    @one.def_vmap
    def of_packs(size: int, is_batched: list[bool], table: Array, tokens: Array) -> Any:
        del size
        if is_batched != [False, True]:
            raise NotImplementedError("lookup: one table for all packs.")
        return _exchanged(table, tokens, spec, dtype), True

    return one(table, tokens)


def _exchanged(
    table: Float[Array, "V e"], tokens: Int[Array, "b t"], spec: PartitionSpec, dtype: DTypeLike
) -> Float[Array, "b t e"]:
    """Of packs on their ranks."""
    (words, channels), where = spec, PartitionSpec(PACKS, rows_axis(tokens.shape[1]))

    def local(table: Array, tokens: Array) -> Array:
        if channels:
            tokens = jax.lax.all_gather(tokens, channels, tiled=True)
        if words:
            tokens = tokens - jax.lax.axis_index(words) * table.shape[0]
            ours = (tokens >= 0) & (tokens < table.shape[0])
            found = table[jnp.where(ours, tokens, 0)].astype(dtype)
            found = jax.lax.psum(jnp.where(ours[..., None], found, 0), words)
        else:
            found = table[tokens].astype(dtype)
        return jax.lax.all_to_all(found, channels, 0, 2, tiled=True) if channels else found

    return _mapped(local, (spec, where), where)(table, tokens)


def head_axes(kv_heads: int) -> tuple[str, ...] | None:
    """Returns the mesh axes that share out so many heads; None where they do not divide them."""
    sizes = jax.sharding.get_abstract_mesh().shape
    axes = tuple(name for name in HEAD_AXES if sizes.get(name, 1) > 1)
    count = 1
    for name in axes:
        count *= sizes[name]
    return axes if axes and kv_heads % count == 0 else None


def rows_axis(count: int) -> str | None:
    """Returns the mesh axis that shares out so many rows of a pack, if it does."""
    shares = jax.sharding.get_abstract_mesh().shape.get(ROWS, 1)
    return ROWS if shares > 1 and count % shares == 0 else None


def _is_split() -> bool:
    """Whether code is traced for several devices at once, and not yet for one of them."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.size > 1 and not mesh.are_all_axes_manual


def _cache_spec(cache: Array, axes: tuple[str, ...] | None) -> PartitionSpec:
    """Of a cache of one layer or of several, whose heads lie on `axes`."""
    return PartitionSpec(*[None] * (cache.ndim - 3), axes)


def _mapped(call: Callable[..., Any], inputs: Any, outputs: Any) -> Callable[..., Any]:
    return jax.shard_map(call, in_specs=inputs, out_specs=outputs, check_vma=False)

"""Fewer visual tokens after the encoder: random drop, ToMe, VisionZip, over packs.

Baselines of allocation: they spend the encoder's work on all pixels and drop tokens afterwards. How
many tokens an item keeps comes from the host; lengths are static, so one compile serves every mix.
What stands where in the result is told by `source`, with which positions and features of other
layers are reduced alike. Axes: v packed visual tokens, w tokens kept, d width, i items.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

ROWS = 128  # tokens whose likeness to all others is held at a time


class Reduced(NamedTuple):
    """Tokens that are left, in the order of the pack.

    Attributes:
      features: `[w d]`, zeros in padding.
      segment_ids: item of each, 1..i, 0 = padding.
      source: packed token that each stands at, -1 in padding.
    """

    features: Float[Array, "w d"]
    segment_ids: Int[Array, " w"]
    source: Int[Array, " w"]


def random_drop(
    features: Float[Array, "v d"],
    segment_ids: Int[Array, " v"],
    keep: Int[Array, " i"],
    keys: Key[Array, " i"],
    *,
    size: int,
) -> Reduced:
    """Keeps tokens at random, `keep[j]` of item `j + 1`.

    Args:
      features: visual tokens.
      segment_ids: item of each, 1..i in order, 0 = padding.
      keep: tokens kept of each item; at least as many as it has keeps all.
      keys: one per item: what an item loses does not depend on what is packed beside it.
      size: static length of the result, at least the sum of what is kept.
    """
    rows, places = _rows(segment_ids), _places(segment_ids)
    draws = jax.vmap(lambda key, place: jax.random.uniform(jax.random.fold_in(key, place)))
    return keep_best(features, segment_ids, draws(keys[rows], places), keep, size=size)


def keep_best(
    features: Float[Array, "v d"],
    segment_ids: Int[Array, " v"],
    scores: Float[Array, " v"],
    keep: Int[Array, " i"],
    *,
    size: int,
) -> Reduced:
    """Keeps the tokens of the highest scores of each item; of equal ones the first."""
    return _gather(features, segment_ids, _best(segment_ids, scores, keep), size)


def visionzip(
    features: Float[Array, "v d"],
    metric: Float[Array, "v k"],
    scores: Float[Array, " v"],
    segment_ids: Int[Array, " v"],
    dominant: Int[Array, " i"],
    contextual: Int[Array, " i"],
    *,
    size: int,
) -> Reduced:
    """Keeps the tokens that are looked at most, and merges the others into evenly spread ones.

    Of the tokens that are not dominant, every n-th is a target; each other joins the target whose
    metric is the most alike, and a target becomes the mean of its group.

    Args:
      features: visual tokens.
      metric: what likeness is told by: keys of the encoder's last layers in the paper.
      scores: attention received, of the class token in the paper; a tower without one takes the
        mean over all tokens.
      segment_ids: item of each token, 1..i in order, 0 = padding.
      dominant: tokens kept as they are, of each item.
      contextual: merged tokens of each item; at least as many as are left over keeps all.
      size: static length of the result, at least the sum of both.

    Reference:
      Yang et al., 2024, "VisionZip", arXiv:2412.04467, section 3. Groups are averaged with their
      target, as in MLLMs-Acceleration's reading of the released code.
    """
    rows = _rows(segment_ids)
    kept = _best(segment_ids, scores, dominant)
    rest = (segment_ids > 0) & ~kept
    counts = _count(rest, rows, dominant.shape[0])
    order = _order_within(rest, segment_ids)
    step = jnp.maximum(1, counts // jnp.maximum(contextual, 1))[rows]
    target = rest & (order % step == 0) & (order // step < contextual[rows])
    joins = rest & ~target & (contextual[rows] > 0)
    home = _nearest(_unit(metric), segment_ids, joins, target)
    merged, _ = _merge(features, jnp.ones(features.shape[0]), joins, home)
    return _gather(merged, segment_ids, kept | target, size)


def tome(
    features: Float[Array, "v d"],
    metric: Float[Array, "v k"],
    segment_ids: Int[Array, " v"],
    keep: Int[Array, " i"],
    *,
    size: int,
    rounds: int,
) -> Reduced:
    """Merges the most alike pairs of tokens, in rounds, until each item has `keep` of them.

    In a round every second token that is left looks for its like among the others; the pairs most
    alike are joined, as means weighted by how many tokens each stands for.

    Args:
      features: visual tokens.
      metric: what likeness is told by; merged like the features.
      segment_ids: item of each token, 1..i in order, 0 = padding.
      keep: tokens left of each item; at least 1.
      size: static length of the result, at least the sum of what is kept.
      rounds: see `tome_rounds`; with fewer an item keeps more than it should.

    Reference:
      Bolya et al., 2023, "Token Merging: Your ViT But Faster", arXiv:2210.09461, section 3. There
      it runs inside the encoder, in every layer; here behind it.
    """
    rows = _rows(segment_ids)
    weights, alive = jnp.ones(features.shape[0]), segment_ids > 0

    def merge_round(carry, _):
        features, metric, weights, alive = carry
        order = _order_within(alive, segment_ids)
        first, second = alive & (order % 2 == 0), alive & (order % 2 == 1)
        unit = _unit(metric)
        home, likeness = _nearest_with(unit, segment_ids, second, first)
        excess = jnp.maximum(_count(alive, rows, keep.shape[0]) - jnp.maximum(keep, 1), 0)
        joins = second & _best(segment_ids, jnp.where(second, likeness, -jnp.inf), excess)
        features, total = _merge(features, weights, joins, home)
        metric, _ = _merge(metric, weights, joins, home)
        return (features, metric, total, alive & ~joins), None

    carry = (features, metric, weights, alive)
    (features, _, _, alive), _ = jax.lax.scan(merge_round, carry, None, length=rounds)
    return _gather(features, segment_ids, alive, size)


def received_attention(
    features: Float[Array, "v d"], segment_ids: Int[Array, " v"]
) -> Float[Array, " v"]:
    """Returns how much attention each token receives from all tokens of its item, as a mean.

    Queries and keys are the features themselves: a substitute for the attention of a class token,
    for towers that have none. Padding receives nothing.
    """
    pad = -features.shape[0] % ROWS
    wide = features.astype(jnp.float32)
    queries = jnp.pad(wide, ((0, pad), (0, 0))).reshape(-1, ROWS, wide.shape[1])
    ids = jnp.pad(segment_ids, (0, pad)).reshape(-1, ROWS)

    def block(args):
        rows, own = args
        allowed = (own[:, None] == segment_ids[None]) & (own > 0)[:, None]
        scores = jnp.where(allowed, rows @ wide.T * wide.shape[1] ** -0.5, -jnp.inf)
        weights = jnp.exp(scores - jnp.where(allowed, scores, 0.0).max(axis=1, keepdims=True))
        weights = jnp.where(allowed, weights, 0.0)
        return (weights / jnp.maximum(weights.sum(axis=1, keepdims=True), 1e-30)).sum(axis=0)

    total = jax.lax.map(block, (queries, ids)).sum(axis=0)
    rows = _rows(segment_ids)
    counts = _count(segment_ids > 0, rows, features.shape[0])[rows]
    return total / jnp.maximum(counts, 1).astype(jnp.float32)


def tome_rounds(counts: list[int], keep: list[int]) -> int:
    """Returns how many rounds of `tome` bring every item down to what it keeps. Host side.

    A round removes at most half of the tokens, rounded down.

    Example:
      >>> tome_rounds([64, 9], [16, 8])
      2
    """
    most = 0
    for count, kept in zip(counts, keep, strict=True):
        rounds = 0
        while count > max(kept, 1):
            count, rounds = max(kept, 1, count - count // 2), rounds + 1
        most = max(most, rounds)
    return most


def _rows(segment_ids: Int[Array, " v"]) -> Int[Array, " v"]:
    return jnp.maximum(segment_ids - 1, 0)


def _places(segment_ids: Int[Array, " v"]) -> Int[Array, " v"]:
    """Index of each token in its item."""
    index = jnp.arange(segment_ids.shape[0], dtype=jnp.int32)
    change = jnp.concatenate([jnp.ones(1, bool), segment_ids[1:] != segment_ids[:-1]])
    return index - jax.lax.cummax(jnp.where(change, index, 0))


def _order_within(mask: Bool[Array, " v"], segment_ids: Int[Array, " v"]) -> Int[Array, " v"]:
    """How many tokens of the mask stand before each one in its item."""
    ones = mask.astype(jnp.int32)
    before = jnp.cumsum(ones) - ones
    start = jnp.arange(segment_ids.shape[0]) - _places(segment_ids)
    return before - before[start]


def _count(mask: Bool[Array, " v"], rows: Int[Array, " v"], num_items: int) -> Int[Array, " i"]:
    return jax.ops.segment_sum(mask.astype(jnp.int32), rows, num_segments=num_items)


def _best(
    segment_ids: Int[Array, " v"], scores: Float[Array, " v"], keep: Int[Array, " i"]
) -> Bool[Array, " v"]:
    """The `keep` tokens of the highest scores of each item."""
    last = jnp.where(segment_ids > 0, segment_ids, jnp.iinfo(jnp.int32).max)  # padding behind all
    order = jnp.lexsort((-scores, last))
    rank = jnp.zeros_like(order).at[order].set(_places(segment_ids[order]))
    return (segment_ids > 0) & (rank < keep[_rows(segment_ids)])


def _gather(
    features: Float[Array, "v d"], segment_ids: Int[Array, " v"], mask: Bool[Array, " v"], size: int
) -> Reduced:
    (source,) = jnp.nonzero(mask, size=size, fill_value=-1)
    real = source >= 0
    kept = jnp.where(real[:, None], features[source], jnp.zeros((), features.dtype))
    return Reduced(kept, jnp.where(real, segment_ids[source], 0), source.astype(jnp.int32))


def _nearest(unit, segment_ids, seekers, targets) -> Int[Array, " v"]:
    return _nearest_with(unit, segment_ids, seekers, targets)[0]


def _nearest_with(
    unit: Float[Array, "v k"],
    segment_ids: Int[Array, " v"],
    seekers: Bool[Array, " v"],
    targets: Bool[Array, " v"],
) -> tuple[Int[Array, " v"], Float[Array, " v"]]:
    """The most alike target in the same item for each seeker, and how alike it is.

    Others get themselves. Rows go by in blocks, so that no array of tokens by tokens exists.
    """
    length = unit.shape[0]
    pad = -length % ROWS
    index = jnp.arange(length, dtype=jnp.int32)

    def block(args):
        rows, ids = args
        likeness = rows @ unit.T
        allowed = (ids[:, None] == segment_ids[None]) & targets[None]
        likeness = jnp.where(allowed, likeness, -jnp.inf)
        return likeness.argmax(axis=1).astype(jnp.int32), likeness.max(axis=1)

    rows = jnp.pad(unit, ((0, pad), (0, 0))).reshape(-1, ROWS, unit.shape[1])
    ids = jnp.pad(segment_ids, (0, pad)).reshape(-1, ROWS)
    home, likeness = (x.reshape(-1)[:length] for x in jax.lax.map(block, (rows, ids)))
    return jnp.where(seekers, home, index), likeness


def _merge(
    features: Float[Array, "v d"],
    weights: Float[Array, " v"],
    joins: Bool[Array, " v"],
    home: Int[Array, " v"],
) -> tuple[Float[Array, "v d"], Float[Array, " v"]]:
    """Weighted means of what comes together at each token, and their weights; float32 sums."""
    length = features.shape[0]
    place = jnp.where(joins, home, jnp.arange(length))
    total = jax.ops.segment_sum(weights, place, num_segments=length)
    wide = features.astype(jnp.float32) * weights[:, None]
    sums = jax.ops.segment_sum(wide, place, num_segments=length)
    means = sums / jnp.maximum(total, 1e-30)[:, None]
    return means.astype(features.dtype), total


def _unit(x: Float[Array, "v k"]) -> Float[Array, "v k"]:
    wide = x.astype(jnp.float32)
    square = jnp.square(wide).sum(axis=-1, keepdims=True)
    return wide * jax.lax.rsqrt(jnp.maximum(square, 1e-24))

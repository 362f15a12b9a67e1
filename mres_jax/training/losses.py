"""Losses over packs.

Axes: t packed positions, p packed patches, c positions of a chunk, e text width, V vocabulary, d
vision width, n classes.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from mres_jax.nn import any_pack


class TokenSums(NamedTuple):
    """Sums over loss tokens; divided by their number, a mean.

    Attributes:
      nll: negative log-likelihood, nats.
      right: how many were predicted.
    """

    nll: Float[Array, ""]
    right: Float[Array, ""]


def next_token_sums(
    head: Callable[[Float[Array, "c e"]], Float[Array, "c V"]],
    hidden: Float[Array, "t e"],
    targets: Int[Array, " t"],
    mask: Bool[Array, " t"],
    *,
    chunk: int | None = None,
) -> TokenSums:
    """Cross-entropy of the masked positions, scored by `head` a chunk at a time.

    The positions that count are moved to the front, so that chunks behind them are skipped: only
    loss tokens pay for the vocabulary. Scores of a chunk are thrown away and computed again in the
    backward pass, so no array of `[t, V]` exists in either. Parameters that `head` closes over get
    their gradients; a frozen head costs none.

    Args:
      head: float32 scores of hidden states, as `PackedVLM.logits`.
      hidden: hidden states.
      targets: the token that follows each.
      mask: which positions count.
      chunk: positions scored at a time; None scores all at once and keeps the scores.
    """
    length = len(targets)
    if chunk is None or chunk >= length:
        return _sums(head, hidden, targets, mask)
    order = jnp.argsort(~mask, stable=True)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def score(hidden: Array, targets: Array, mask: Array) -> TokenSums:
        nothing = TokenSums(jnp.zeros(()), jnp.zeros(()))
        some = any_pack(mask.any())
        return jax.lax.cond(some, lambda: _sums(head, hidden, targets, mask), lambda: nothing)

    def step(total: TokenSums, part: tuple[Array, Array, Array]) -> tuple[TokenSums, None]:
        return jax.tree.map(jnp.add, total, score(*part)), None

    parts = jax.tree.map(lambda x: _chunks(x[order], chunk), (hidden, targets, mask))
    return jax.lax.scan(step, TokenSums(jnp.zeros(()), jnp.zeros(())), parts)[0]


def _sums(head: Callable[[Array], Array], hidden: Array, targets: Array, mask: Array) -> TokenSums:
    logits = head(hidden)
    nll = jnp.where(mask, _cross_entropy(logits, targets), 0.0)
    right = jnp.where(mask, logits.argmax(axis=-1) == targets, False)
    return TokenSums(nll.sum(), right.sum().astype(jnp.float32))


def _chunks(x: Array, size: int) -> Array:
    """`x` in rows of `size` positions, the last filled with zeros."""
    padding = [(0, -len(x) % size)] + [(0, 0)] * (x.ndim - 1)
    return jnp.pad(x, padding).reshape(-1, size, *x.shape[1:])


class PatchHeads(nnx.Module):
    """Linear probes on features: what stands on each patch?

    They are a training aid and no part of the model: a small tower that must learn to read from
    answers alone stays at chance for very long (`experiments/LOG.md`). One head per label name.
    """

    def __init__(
        self, size: int, num_classes: Mapping[str, int], *, patches: int = 1, rngs: nnx.Rngs
    ):
        """Makes the heads.

        Args:
          size: feature width.
          num_classes: by label name; class 0 is background.
          patches: how many patches one row of features stands for, as a visual token for
            `merge_size**2`; each is named on its own.
          rngs: source of the weights.
        """
        self.num_classes = dict(num_classes)
        self.heads = nnx.Dict(
            {name: nnx.Linear(size, patches * n, rngs=rngs) for name, n in num_classes.items()}
        )

    def __call__(
        self, features: Float[Array, "v d"], labels: Mapping[str, Int[Array, " p"]]
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Sum of the heads' losses, each class-balanced between background (0) and the rest.

        Labels of -1 (padding, doubtful patches) count nowhere. Also returns the accuracy of each
        head on patches that are not background.
        """
        total, accuracy = jnp.zeros(()), {}
        features = features.astype(jnp.float32)
        # Else the loss falls by growing the features, which nothing after it would undo.
        features *= jax.lax.rsqrt(jnp.square(features).mean(axis=-1, keepdims=True) + 1e-6)
        for name, count in self.num_classes.items():
            target = labels[name]
            logits = self.heads[name](features).reshape(len(target), count)
            nll = _cross_entropy(logits, jnp.maximum(target, 0))
            glyph, ground = target > 0, target == 0
            total = total + _mean_where(nll, glyph) + 0.2 * _mean_where(nll, ground)
            right = (logits.argmax(axis=-1) == target).astype(jnp.float32)
            accuracy[name] = _mean_where(right, glyph)
        return total, accuracy


def _cross_entropy(logits: Float[Array, "t n"], targets: Int[Array, " t"]) -> Float[Array, " t"]:
    picked = jnp.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    return jax.nn.logsumexp(logits, axis=-1) - picked


def _mean_where(x: Float[Array, " t"], mask: Bool[Array, " t"]) -> Float[Array, ""]:
    return jnp.where(mask, x, 0.0).sum() / jnp.maximum(mask.sum(), 1).astype(jnp.float32)

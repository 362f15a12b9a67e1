"""Losses over packs.

Axes: t packed positions, p packed patches, V vocabulary, d vision width, n classes.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int


def next_token_loss(
    logits: Float[Array, "t V"], targets: Int[Array, " t"], mask: Bool[Array, " t"]
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Mean cross-entropy over the masked positions, nats, and the share of them predicted right."""
    weights = mask.astype(jnp.float32)
    count = jnp.maximum(weights.sum(), 1.0)
    nll = _cross_entropy(logits, targets)
    right = (logits.argmax(axis=-1) == targets).astype(jnp.float32)
    loss = (nll * weights).sum() / count
    return loss, {"loss": loss, "accuracy": (right * weights).sum() / count}


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

"""Fewer visual tokens behind the encoder: the baselines of allocation, on a model in this process.

The encoder sees all pixels; then each prompt keeps a share of its visual tokens, and the decoder
reads these alone, at the positions that they had. Axes: v packed visual tokens, t positions.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from mres_jax import nn
from mres_jax.data.types import TEXT, Pack
from mres_jax.errors import ConfigError, suggest
from mres_jax.models.tower import Visual

METHODS = ("random_drop", "tome", "visionzip")
DOMINANT = 54 / 64  # share of VisionZip's tokens that are kept as they are: 54 and 10 in the paper


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenReduction:
    """Which tokens are left, and how many.

    Two stated substitutes: likeness is told by the visual tokens themselves, not by keys of the
    encoder; VisionZip's scores are the attention that a token receives from all tokens of its
    prompt, since most towers have no class token. All frames of a prompt share one budget. Features
    that a model adds behind its first layers (DeepStack) are those of the token that stays.

    Attributes:
      method: `random_drop`, `tome` or `visionzip`.
      retention: share of the visual tokens that a prompt keeps, at least one of them.
      seed: of `random_drop`.
    """

    method: str
    retention: float
    seed: int = 0

    def __post_init__(self):
        if self.method not in METHODS:
            raise ConfigError(
                f"reduction: no method {self.method!r}{suggest(self.method, METHODS)}; have "
                f"{', '.join(METHODS)}."
            )
        if not 0 < self.retention <= 1:
            raise ConfigError(
                f"reduction: retention={self.retention} must be above 0, and 1 at most."
            )

    def keep(self, visual_tokens: int) -> int:
        """Returns how many of a prompt's visual tokens are left; of none, none."""
        return min(visual_tokens, max(1, int(self.retention * visual_tokens + 1e-9)))

    def __call__(self, pack: Pack, visual: Visual) -> tuple[Pack, Visual]:
        """Returns a pack of prompts without the tokens that are dropped, and what is left."""
        index, owner = np.asarray(pack.visual_index), np.asarray(pack.segment_ids)
        ids = np.zeros(len(visual.tokens), np.int32)
        ids[index[index >= 0]] = owner[index >= 0]
        counts = np.bincount(ids, minlength=int(owner.max()) + 1)[1:].tolist()
        kept = [self.keep(count) for count in counts]
        reduced = self._reduce(visual.tokens, jnp.asarray(ids), counts, kept)
        source = np.asarray(reduced.source)
        tokens = _placed(visual.tokens, reduced.features, reduced.source)
        return without(pack, source[source >= 0]), visual._replace(tokens=tokens)

    def _reduce(self, tokens: Array, ids: Array, counts: list[int], kept: list[int]) -> nn.Reduced:
        size, keep = tokens.shape[0], jnp.asarray(kept, jnp.int32)
        if self.method == "random_drop":
            keys = jax.random.split(jax.random.key(self.seed), len(kept))
            return _random_drop(tokens, ids, keep, keys, size=size)
        if self.method == "tome":
            rounds = nn.tome_rounds(counts, kept)
            return _tome(tokens, tokens, ids, keep, size=size, rounds=rounds)
        dominant = jnp.asarray([max(1, round(DOMINANT * n)) for n in kept], jnp.int32)
        scores = nn.received_attention(tokens, ids)
        return _visionzip(tokens, tokens, scores, ids, dominant, keep - dominant, size=size)


def without(pack: Pack, kept: Int[np.ndarray, " w"]) -> Pack:
    """Returns a pack of prompts whose decoder gets text and the visual tokens `kept` alone.

    Tokens stay at their rotary positions; buffers keep their lengths.
    """
    index = np.asarray(pack.visual_index)
    stays = (np.asarray(pack.segment_ids) > 0) & ((index < 0) | np.isin(index, kept))
    room = len(index)

    def moved(x: np.ndarray, fill: int = 0) -> np.ndarray:
        x = np.asarray(x)[..., stays]
        padding = [(0, 0)] * (x.ndim - 1) + [(0, room - x.shape[-1])]
        return np.pad(x, padding, constant_values=fill)

    return pack._replace(
        tokens=moved(pack.tokens),
        segment_ids=moved(pack.segment_ids),
        positions=moved(pack.positions),
        visual_index=moved(pack.visual_index, TEXT),
        targets=moved(pack.targets),
        loss_mask=moved(pack.loss_mask),
    )


_random_drop = functools.partial(jax.jit, static_argnames="size")(nn.random_drop)
_visionzip = functools.partial(jax.jit, static_argnames="size")(nn.visionzip)
_tome = functools.partial(jax.jit, static_argnames=("size", "rounds"))(nn.tome)


@jax.jit
def _placed(tokens: Array, features: Array, source: Array) -> Array:
    """The features in the places that they stand at; those without one go nowhere."""
    place = jnp.where(source >= 0, source, tokens.shape[0])
    return tokens.at[place].set(features.astype(tokens.dtype), mode="drop")

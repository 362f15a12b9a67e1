"""The allocator: coarse frames and a question in, a distribution over scales per frame out.

Clips of any lengths share one buffer of frames; nothing that stands beside a clip changes what it
gets. Axes: n packed frames, l tokens of a frame, d trunk width, i clips, q tokens of a question.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key

from mres_jax import nn, ops
from mres_jax.resolution.allocator.attention import (
    EPSILON,
    CrossAttention,
    SpatialAttention,
    TemporalAttention,
    places_of,
    temporal_plan,
)
from mres_jax.resolution.allocator.beta import Beta, to_scale
from mres_jax.resolution.allocator.config import AllocatorConfig
from mres_jax.resolution.allocator.features import ClipFeatures
from mres_jax.resolution.allocator.pooling import QuestionPooling, Signals

START_SHAPE = 2.0  # alpha and beta of every frame where `init` is healthy
RELEASED_BIAS = -10.0  # of the scores times their factor, where `init` is released


class Decision(NamedTuple):
    """What an allocator says about packed frames. Padding holds finite numbers of no meaning.

    Attributes:
      policy: distribution of the action of each frame.
      features: of each frame, for the similarity term of training.
      signals: what the head saw beside them.
    """

    policy: Beta
    features: Float[Array, "n d"]
    signals: Signals


class TrunkLayer(nnx.Module):
    """Spatial, temporal and cross attention and a feed-forward block, each added to its input."""

    def __init__(self, config: AllocatorConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        size, heads = config.hidden_size, config.num_heads
        shared = {"head_dim": config.head_dim, "dtype": dtype, "rngs": rngs}
        spatial = config.spatial_attention
        self.spatial = SpatialAttention(size, num_heads=heads, **shared) if spatial else None
        self.temporal = TemporalAttention(size, num_heads=config.num_temporal_heads, **shared)
        self.cross = CrossAttention(size, num_heads=heads, gated=config.gated, **shared)
        self.norm = nn.LayerNorm(size, epsilon=EPSILON)
        inner = config.ffn_factor * size
        self.up = nnx.Linear(size, inner, use_bias=False, dtype=dtype, rngs=rngs)
        self.down = nnx.Linear(inner, size, use_bias=False, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "n l d"], question, mask, clips, places, plan: ops.Plan):
        """Returns the tokens after this layer."""
        if self.spatial is not None:
            x = x + self.spatial(x)
        x = x + self.temporal(x, places, plan)
        x = x + self.cross(x, question, mask, clips)
        return x + self.down(jax.nn.gelu(self.up(self.norm(x)), approximate=False))


class ScoreHead(nnx.Module):
    """Two scores per frame: a block of two layers, and a straight way past it."""

    def __init__(self, config: AllocatorConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        size = config.hidden_size
        zeros = nnx.initializers.zeros_init()
        healthy = config.init == "healthy"
        bias = RELEASED_BIAS / config.link.factor
        if healthy:
            bias = config.link.score_of(START_SHAPE)
        self.norm = nn.LayerNorm(size, epsilon=EPSILON)
        self.up = nnx.Linear(size, size // 2, dtype=dtype, rngs=rngs)
        self.down = nnx.Linear(
            size // 2,
            2,
            kernel_init=zeros,
            bias_init=nnx.initializers.constant(bias),
            dtype=dtype,
            rngs=rngs,
        )
        self.skip = nnx.Linear(
            size,
            2,
            use_bias=False,
            kernel_init=zeros if healthy else nnx.initializers.lecun_uniform(),
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(self, features: Float[Array, "n d"]) -> Float[Array, "n 2"]:
        hidden = jax.nn.gelu(self.up(self.norm(features)), approximate=False)
        return self.down(hidden) + self.skip(features)


class AllocatorNetwork(nnx.Module):
    """The trainable part of an allocator; its eyes (a `FeatureExtractor`) are frozen and apart.

    Parameters are float32; products run in `dtype`, distributions are float32.

    Reference:
      Liao et al., 2026, "ResAdapt", arXiv:2603.28610; layers, pooling and head as in the released
      code, `smol_v2` of Xnhyacinth/ResAdapt at commit 3816930.
    """

    def __init__(self, config: AllocatorConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        self.config, self.dtype = config, dtype
        size = config.hidden_size
        linear = {"use_bias": False, "dtype": dtype, "rngs": rngs}
        self.frame_proj = nnx.Linear(config.frame_size, size, **linear)
        self.question_proj = nnx.Linear(config.question_size, size, **linear)
        self.layers = nnx.List(
            [TrunkLayer(config, dtype=dtype, rngs=rngs) for _ in range(config.num_layers)]
        )
        self.pooling = QuestionPooling(
            size, gate_norm=config.pool_gate_norm, dtype=dtype, rngs=rngs
        )
        self.head = ScoreHead(config, dtype=dtype, rngs=rngs)

    def __call__(self, clips: ClipFeatures) -> Decision:
        """Returns the distribution of every frame's action."""
        segment_ids = jnp.asarray(clips.segment_ids)
        rows, places = jnp.maximum(segment_ids - 1, 0), places_of(segment_ids)
        x = self.frame_proj(jnp.asarray(clips.frames, self.dtype))
        question = self.question_proj(jnp.asarray(clips.question, self.dtype))
        mask = jnp.asarray(clips.question_mask)
        plan = temporal_plan(segment_ids, x.shape[1])
        for layer in self.layers:
            x = layer(x, question, mask, rows, places, plan)
        features, signals = self.pooling(x, question, mask, rows, places)
        policy = self.config.link(self.head(features))
        return Decision(policy, features.astype(jnp.float32), signals)

    def mean_scales(self, clips: ClipFeatures) -> Float[Array, " n"]:
        """Returns the scale per side that each frame gets outside training."""
        return self.scale(self(clips).policy.mean())

    def scale(self, actions: Float[Array, " n"]) -> Float[Array, " n"]:
        """Returns the scale per side of actions between 0 and 1."""
        return to_scale(actions, min_scale=self.config.min_scale, max_scale=self.config.max_scale)


def frame_keys(clip_keys: Key[Array, " i"], segment_ids: Int[Array, " n"]) -> Key[Array, " n"]:
    """Returns one key per frame from its clip's key and its index there.

    What a frame draws does not depend on what the buffer holds beside its clip.
    """
    rows = jnp.maximum(segment_ids - 1, 0)
    return jax.vmap(jax.random.fold_in)(clip_keys[rows], places_of(segment_ids))

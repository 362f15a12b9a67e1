"""The clipped objective of PPO, per decision: a frame of an allocator, a token of a backbone.

Axes: *b any layout of decisions.
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mres_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class PPO:
    """Limits of the ratio.

    Attributes:
      clip_low: how far below 1 the ratio counts.
      clip_high: how far above 1 it counts.
      dual_clip: with a negative advantage, the ratio beyond which it no longer counts; None for no
        such limit.
      max_log_ratio: where the logarithm of the ratio is cut, so that no ratio overflows.
    """

    clip_low: float = 0.2
    clip_high: float = 0.28
    dual_clip: float | None = 10.0
    max_log_ratio: float = 20.0

    def __post_init__(self):
        if not (0 <= self.clip_low < 1 and self.clip_high >= 0):
            raise ConfigError(
                f"PPO: clip_low={self.clip_low} must lie in 0 to 1 and clip_high={self.clip_high} "
                "must not be below 0."
            )
        if self.dual_clip is not None and self.dual_clip <= 1 + self.clip_high:
            raise ConfigError(
                f"PPO: dual_clip={self.dual_clip} must be above 1 + clip_high={1 + self.clip_high}."
            )


class Objective(NamedTuple):
    """A loss to be minimised, and how far the policy has moved.

    Attributes:
      loss: mean over the decisions that count.
      ratio: mean probability ratio.
      clip_fraction: share of decisions whose ratio was clipped against them.
      kl: mean of `ratio - 1 - log ratio`, an estimate of the divergence that is never negative.
    """

    loss: Float[Array, ""]
    ratio: Float[Array, ""]
    clip_fraction: Float[Array, ""]
    kl: Float[Array, ""]


def ppo_objective(
    logprobs: Float[Array, "*b"],
    sampled_logprobs: Float[Array, "*b"],
    advantages: Float[Array, "*b"],
    mask: Bool[Array, "*b"],
    config: PPO,
) -> Objective:
    """Returns the clipped objective; all decisions that count have the same weight.

    Args:
      logprobs: of the decisions under the policy that learns, nats.
      sampled_logprobs: as the sampler reported them; never recomputed.
      advantages: of each decision; no gradient flows into them.
      mask: False where there is no decision. Nothing is read there.
      config: limits.

    Reference:
      Schulman et al., 2017, "Proximal Policy Optimization", arXiv:1707.06347, equation 7; Ye et
      al., 2020, arXiv:1912.09729, equation 5 (dual clip); Yu et al., 2025, "DAPO",
      arXiv:2503.14476, section 3.1 (two clip limits).
    """
    difference = jnp.where(mask, logprobs - sampled_logprobs, 0.0)
    difference = jnp.clip(difference, -config.max_log_ratio, config.max_log_ratio)
    advantages = jnp.where(mask, advantages, 0.0)
    ratio = jnp.exp(difference)
    clipped = jnp.clip(ratio, 1 - config.clip_low, 1 + config.clip_high)
    gain = jnp.minimum(ratio * advantages, clipped * advantages)
    if config.dual_clip is not None:
        least = config.dual_clip * advantages
        gain = jnp.where(advantages < 0, jnp.maximum(gain, least), gain)
    against = mask & (clipped * advantages < ratio * advantages)
    count = jnp.maximum(mask.sum().astype(jnp.float32), 1.0)

    def mean(x):
        return jnp.where(mask, x, 0.0).sum() / count

    return Objective(
        loss=-mean(gain),
        ratio=mean(ratio),
        clip_fraction=mean(against.astype(jnp.float32)),
        kl=mean(ratio - 1 - difference),
    )

"""What keeps an allocator from giving every frame the same, or from growing too sure.

Frames of all clips stand one behind another. Axes: n packed frames, d width of their features.

Reference:
  Liao et al., 2026, "ResAdapt", arXiv:2603.28610, equation 18 and the concentration term; and the
  released code (Xnhyacinth/ResAdapt, commit 3816930), whose two terms are other functions.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mres_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Similarity:
    """Like neighbours should not both be large.

    `paper`: the product of two scales is held below `exp(-margin)`, whichever of the two yields.
    `code`: the later frame is asked to be smaller than the earlier one, by up to
    `exp(-decay)`, so scales fall along a still shot.

    The paper gives no numbers; those of the sigmoid and `decay` are the code's, `margin` is ours:
    two frames that are alike pay from a scale of 0.61 each on.

    Attributes:
      form: which of the two.
      threshold: cosine at which a pair counts half (tau_sim).
      temperature: width of that sigmoid (gamma_sim of the paper, `sim_temp` of the code).
      margin: of the paper's form (eta_sim), nats.
      decay: of the code's form (`sim_gamma`), nats.
      weight: in the loss.
    """

    form: str = "code"
    threshold: float = 0.55
    temperature: float = 0.12
    margin: float = 1.0
    decay: float = 0.05
    weight: float = 1e-3

    def __post_init__(self):
        _check_form("Similarity", self.form)
        if not self.temperature > 0:
            raise ConfigError(f"Similarity: temperature={self.temperature} must be above 0.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Concentration:
    """The Beta's `alpha + beta` is held down, so that the policy goes on exploring.

    Attributes:
      form: `paper` charges what is above `cap`, `code` all of it.
      cap: of the paper's form (kappa_max); the paper gives no number, this one is ours.
      weight: in the loss.
    """

    form: str = "code"
    cap: float = 20.0
    weight: float = 5e-4

    def __post_init__(self):
        _check_form("Concentration", self.form)


def similarity_loss(
    features: Float[Array, "n d"],
    scales: Float[Array, " n"],
    segment_ids: Int[Array, " n"],
    config: Similarity,
) -> Float[Array, ""]:
    """Returns the mean over all pairs of neighbours, without `weight`; 0 where there is no pair.

    Args:
      features: of the frames; the paper takes frozen coarse ones, the code trainable ones.
      scales: per side, above 0; the means of the policy, since a drawn scale has no gradient.
      segment_ids: clip of each frame, 1..i, 0 = padding.
      config: form and constants.
    """
    pairs = (segment_ids[1:] == segment_ids[:-1]) & (segment_ids[1:] > 0)
    unit = _unit(features)
    cosine = (unit[1:] * unit[:-1]).sum(axis=-1)
    weight = jax.nn.sigmoid((cosine - config.threshold) / config.temperature)
    logs = jnp.log(jnp.where(segment_ids > 0, scales, 1.0))
    if config.form == "paper":
        excess = logs[:-1] + logs[1:] + config.margin
    else:
        excess = logs[1:] - (logs[:-1] - config.decay * weight)
    return _mean(weight * jax.nn.relu(excess), pairs)


def concentration_loss(
    alpha: Float[Array, " n"],
    beta: Float[Array, " n"],
    segment_ids: Int[Array, " n"],
    config: Concentration,
) -> Float[Array, ""]:
    """Returns the mean over frames, without `weight`."""
    total = alpha + beta
    if config.form == "paper":
        total = jax.nn.relu(total - config.cap)
    return _mean(total, segment_ids > 0)


def _unit(x: Float[Array, "n d"]) -> Float[Array, "n d"]:
    square = jnp.square(x).sum(axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))


def _mean(x: Float[Array, " n"], where: Bool[Array, " n"]) -> Float[Array, ""]:
    count = jnp.maximum(where.sum().astype(jnp.float32), 1.0)
    return jnp.where(where, x, 0.0).sum() / count


def _check_form(name: str, form: str) -> None:
    if form not in ("paper", "code"):
        raise ConfigError(f"{name}: form={form!r} must be paper or code.")

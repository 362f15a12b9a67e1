"""The action of an allocator: a Beta variable between 0 and 1 per frame, kept as its logit.

`a = sigmoid(logit)`, so `log a` and `log(1 - a)` are exact however near to 0 or 1 an action is: no
action is ever clamped, and the density that a learner finds is the one that it was drawn with.

Axes: *b any layout of frames.

Reference:
  Liao et al., 2026, "ResAdapt", arXiv:2603.28610: independent Beta actions over frames, mapped
  linearly to scales. The way from two scores to alpha and beta is that of the released code.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import betaln, digamma
from jaxtyping import Array, Float, Key

from mres_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class BetaLink:
    """From two scores of a head to alpha and beta: `softplus(factor * score) + offset`, in a range.

    Attributes:
      factor: of the scores.
      offset: added; 1 allows one mode only, 0 also densities that rise towards both ends.
      least: smallest alpha and beta.
      most: largest.
    """

    factor: float = 0.5
    offset: float = 1.0
    least: float = 0.1
    most: float = 20.0

    def __post_init__(self):
        if not (self.factor > 0 and self.offset >= 0 and 0 < self.least < self.most):
            raise ConfigError(
                f"BetaLink: factor={self.factor} must be above 0, offset={self.offset} not below "
                f"0, and 0 < least={self.least} < most={self.most}."
            )

    def __call__(self, scores: Float[Array, "*b 2"]) -> "Beta":
        """The distribution of each frame, float32."""
        shape = jax.nn.softplus(self.factor * scores.astype(jnp.float32)) + self.offset + 1e-6
        shape = jnp.clip(shape, self.least, self.most)
        return Beta(shape[..., 0], shape[..., 1])

    def score_of(self, shape: float) -> float:
        """The score that gives this alpha or beta.

        Raises:
          ConfigError: it is not above `offset`.
        """
        above = shape - self.offset - 1e-6
        if above <= 0:
            raise ConfigError(
                f"BetaLink: no score gives alpha={shape}: it must be above offset={self.offset}."
            )
        return math.log(math.expm1(above)) / self.factor


class Beta(NamedTuple):
    """Independent Beta variables.

    Attributes:
      alpha: above 0.
      beta: above 0.
    """

    alpha: Float[Array, "*b"]
    beta: Float[Array, "*b"]

    def mean(self) -> Float[Array, "*b"]:
        """Expected action, between 0 and 1."""
        return self.alpha / (self.alpha + self.beta)

    def draw(self, keys: Key[Array, "*b"]) -> Float[Array, "*b"]:
        """Returns the logit of one action per frame, each drawn with its own key.

        An action is the share of one of two gamma variables; these are drawn as logarithms, so
        that neither underflows.
        """
        halves = jax.vmap(jax.random.split)(keys.reshape(-1)).reshape(-1)
        shapes = jnp.stack([self.alpha, self.beta], axis=-1).reshape(-1)
        logs = jax.vmap(jax.random.loggamma)(halves, shapes)  # one program: it compiles long
        return (logs[::2] - logs[1::2]).reshape(self.alpha.shape)

    def log_density(self, logits: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """Logarithm of the density of the action `sigmoid(logit)`, nats."""
        log_a, log_rest = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
        powers = (self.alpha - 1) * log_a + (self.beta - 1) * log_rest
        return powers - betaln(self.alpha, self.beta)

    def entropy(self) -> Float[Array, "*b"]:
        """Differential entropy, nats; 0 for the uniform density, its largest value."""
        alpha, beta = self.alpha, self.beta
        total = (alpha + beta - 2) * digamma(alpha + beta)
        parts = (alpha - 1) * digamma(alpha) + (beta - 1) * digamma(beta)
        return betaln(alpha, beta) - parts + total


def to_scale(
    actions: Float[Array, "*b"], *, min_scale: float, max_scale: float
) -> Float[Array, "*b"]:
    """Returns the scale per side of actions between 0 and 1."""
    return min_scale + actions * (max_scale - min_scale)

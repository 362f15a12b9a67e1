"""Cost-aware policy optimisation (CAPO): advantages of allocations, from accuracy and cost.

Paper and released code disagree in places; each such place is a field, and defaults are the code's.
Everything here is a pure function that runs under `jit`.

Axes: b prompts, m allocations of a prompt, n rollouts of an allocation.

Reference:
  Liao et al., 2026, "ResAdapt", arXiv:2603.28610 (its equation 15 is where paper and code differ in
  sign); and the released training code (Xnhyacinth/ResAdapt, commit 3816930), read for what the
  paper does not say: all constants.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mres_jax.errors import ConfigError
from mres_jax.training.rl.groups import normalise_group


@dataclasses.dataclass(frozen=True, kw_only=True)
class CAPO:
    """Constants and forms of CAPO; `CAPO()` is the released code, `CAPO.paper()` the paper.

    Attributes:
      pivot_mix: share of the group's mean cost in the pivot (kappa_mix).
      fixed_pivot: the cost around which the pivot is held (tau_fix), 0 to 1.
      temperature: width in which shaping turns over around the pivot (tau_s).
      right_weight: of shaping where the answer is right (lambda_plus).
      wrong_weight: of shaping where it is wrong (lambda_minus).
      right_power: exponent of the accuracy that scales the right branch; 0 leaves it out.
      right_floor: least such scale.
      wrong_power: exponent of `1 - accuracy` that scales the wrong branch; 0 leaves it out.
      shaping_weight: of shaping in the advantage (lambda_capo).
      shaping_cap: largest magnitude of shaping; None leaves it free.
      cost_pressure: what one unit of cost takes from every advantage (gamma).
      floor: least advantage of a right answer (epsilon_plus); None for no floor.
      right_share: share of right answers above which an allocation counts as right, 0 to 1; with
        `unit="rollout"` each answer counts for itself. The released code has this one number for
        the mean accuracy: the same with one rollout, or accuracies of 0 and 1.
      wrong_sign: `code` rewards spending more where the answer is wrong, `paper` punishes it.
      centered: whether shaping is 0 at the pivot (code) or half its weight there (paper).
      unit: what is judged: each `allocation` by its mean accuracy (code) or each `rollout` (paper).
    """

    pivot_mix: float = 0.5
    fixed_pivot: float = 0.4
    temperature: float = 0.15
    right_weight: float = 0.7
    wrong_weight: float = 1.3
    right_power: float = 0.5
    right_floor: float = 0.05
    wrong_power: float = 1.0
    shaping_weight: float = 0.25
    shaping_cap: float | None = None
    cost_pressure: float = 0.05
    floor: float | None = 1e-3
    right_share: float = 0.35
    wrong_sign: str = "code"
    centered: bool = True
    unit: str = "allocation"

    def __post_init__(self):
        for name in ("pivot_mix", "fixed_pivot", "right_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"CAPO: {name}={getattr(self, name)} must lie in 0 to 1.")
        if not self.temperature > 0:
            raise ConfigError(f"CAPO: temperature={self.temperature} must be above 0.")
        for name in ("right_power", "right_floor", "wrong_power"):
            if getattr(self, name) < 0:
                raise ConfigError(f"CAPO: {name}={getattr(self, name)} must not be below 0.")
        choices = {"wrong_sign": ("code", "paper"), "unit": ("allocation", "rollout")}
        for name, have in choices.items():
            if getattr(self, name) not in have:
                raise ConfigError(
                    f"CAPO: {name}={getattr(self, name)!r} must be one of {', '.join(have)}."
                )

    @classmethod
    def paper(cls) -> "CAPO":
        """The formulas as printed. The paper gives no constants, so those stay the code's."""
        return cls(
            wrong_sign="paper", centered=False, unit="rollout", right_power=0.0, wrong_power=0.0
        )

    @classmethod
    def long_runs(cls) -> "CAPO":
        """The constants in the names of the released long runs; they had no floor."""
        return cls(right_weight=0.9, wrong_weight=1.2, shaping_cap=0.25, floor=None)


class Advantages(NamedTuple):
    """Advantages of one step, and what they were made of.

    Attributes:
      rollouts: of each rollout, for the backbone where it shares the signal.
      allocations: of each allocation, the mean over its rollouts: for all frames of a clip.
      base: the task's part.
      shaping: the shaped part, before its weight.
      pivot: the cost at which shaping turns over.
      right: what counted as right; under `unit="allocation"` all rollouts of one alike.
    """

    rollouts: Float[Array, "*b m n"]
    allocations: Float[Array, "*b m"]
    base: Float[Array, "*b m n"]
    shaping: Float[Array, "*b m n"]
    pivot: Float[Array, "*b"]
    right: Bool[Array, "*b m n"]


def proxy_cost(
    mean_scale: Float[Array, "*b"], *, min_scale: float, max_scale: float
) -> Float[Array, "*b"]:
    """Returns the linear cost of an allocation: where its mean scale lies in the range, 0 to 1."""
    share = (mean_scale - min_scale) / (max_scale - min_scale)
    return jnp.clip(share, 0.0, 1.0)


def token_cost(
    retention: Float[Array, "*b"], *, min_scale: float, max_scale: float
) -> Float[Array, "*b"]:
    """Returns the cost of true visual tokens: that of the uniform scale which comes to as many.

    Where the proxy charges a scale that rounding or a limit of pixels took back, this does not.

    Args:
      retention: true visual tokens / visual tokens at native resolution.
      min_scale: of the allocator.
      max_scale: of the allocator.
    """
    return proxy_cost(jnp.sqrt(retention), min_scale=min_scale, max_scale=max_scale)


def dynamic_pivot(cost: Float[Array, "*b m"], config: CAPO) -> Float[Array, "*b"]:
    """Returns the cost around which a group is judged, between its own mean and a fixed one."""
    mixed = config.pivot_mix * cost.mean(axis=-1)
    return mixed + (1 - config.pivot_mix) * config.fixed_pivot


def shaping(
    accuracy: Float[Array, "*b"],
    right: Bool[Array, "*b"],
    cost: Float[Array, "*b"],
    pivot: Float[Array, "*b"],
    config: CAPO,
) -> Float[Array, "*b"]:
    """Returns the asymmetric shaping of each judged thing.

    Right: more the further the cost is below the pivot. Wrong: by the distance above it, with the
    sign that `wrong_sign` says.
    """
    below = (pivot - cost) / config.temperature
    middle = 0.5 if config.centered else 0.0
    right_scale = jnp.maximum(_power(accuracy, config.right_power), config.right_floor)
    wrong_scale = _power(1 - accuracy, config.wrong_power)
    sign = 1.0 if config.wrong_sign == "code" else -1.0
    if_right = config.right_weight * right_scale * (jax.nn.sigmoid(below) - middle)
    if_wrong = sign * config.wrong_weight * wrong_scale * (jax.nn.sigmoid(-below) - middle)
    shaped = jnp.where(right, if_right, if_wrong)
    cap = config.shaping_cap
    return shaped if cap is None else jnp.clip(shaped, -cap, cap)


def capo_advantages(
    accuracy: Float[Array, "*b m n"],
    right: Bool[Array, "*b m n"],
    cost: Float[Array, "*b m"],
    config: CAPO,
) -> Advantages:
    """Returns the advantages of all rollouts and allocations of each prompt.

    Args:
      accuracy: reward of the answer alone, without format, 0 to 1 (grounded answers: to 2).
      right: whether each answer counts as right, `Reward.right`.
      cost: of each allocation, from `proxy_cost` or `token_cost`.
      config: constants and forms.
    """
    judged = accuracy
    if config.unit == "allocation":
        judged = jnp.broadcast_to(accuracy.mean(axis=-1, keepdims=True), accuracy.shape)
        share = right.astype(jnp.float32).mean(axis=-1, keepdims=True)
        right = jnp.broadcast_to(share > config.right_share, accuracy.shape)
    base = _base(judged, config)
    pivot = dynamic_pivot(cost, config)
    costs = jnp.broadcast_to(cost[..., None], judged.shape)
    pivots = jnp.broadcast_to(pivot[..., None, None], judged.shape)
    shaped = shaping(jnp.clip(judged, 0.0, 1.0), right, costs, pivots, config)
    advantages = base + config.shaping_weight * shaped - config.cost_pressure * costs
    if config.floor is not None:
        advantages = jnp.where(right, jnp.maximum(advantages, config.floor), advantages)
    return Advantages(advantages, advantages.mean(axis=-1), base, shaped, pivot, right)


def _base(judged: Float[Array, "*b m n"], config: CAPO) -> Float[Array, "*b m n"]:
    """Normalised over the allocations, or over all rollouts of the prompt."""
    if config.unit == "allocation":
        base = normalise_group(judged[..., 0])[..., None]
        return jnp.broadcast_to(base, judged.shape)
    flat = judged.reshape(*judged.shape[:-2], -1)
    return normalise_group(flat).reshape(judged.shape)


def _power(base: Float[Array, "*b"], exponent: float) -> Float[Array, "*b"]:
    return jnp.ones_like(base) if exponent == 0 else jnp.power(base, exponent)

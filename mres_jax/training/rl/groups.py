"""Rewards of one group of rollouts against each other.

Axes: b prompts, g rollouts of one group.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mres_jax.errors import RunError


def normalise_group(
    rewards: Float[Array, "*b g"],
    *,
    unbiased: bool = False,
    min_deviation: float = 1e-4,
    epsilon: float = 1e-6,
) -> Float[Array, "*b g"]:
    """Returns rewards less their mean, over their deviation; 0 where a group does not vary.

    Args:
      rewards: of each group.
      unbiased: whether the variance is divided by `g - 1` instead of `g`.
      min_deviation: a group whose deviation is below it gives zeros, and so does a group of one.
      epsilon: added to the deviation.

    Reference:
      Shao et al., 2024, "DeepSeekMath", arXiv:2402.03300, section 4.1.2. The limits are those of
      the released code of ResAdapt (arXiv:2603.28610).
    """
    if rewards.shape[-1] == 1:
        return jnp.zeros_like(rewards)
    centred = _centred(rewards)
    total = jnp.square(centred).sum(axis=-1, keepdims=True)
    deviation = jnp.sqrt(total / (rewards.shape[-1] - int(unbiased)))
    return jnp.where(deviation < min_deviation, 0.0, centred / (deviation + epsilon))


def grpo_advantages(rewards: Float[Array, "*b g"]) -> Float[Array, "*b g"]:
    """Returns one advantage per rollout, for all of its tokens: deviations from the group's mean.

    The deviation is the unbiased one, as in the released training code of ResAdapt; a group that
    does not vary gives zeros, as in `normalise_group`.
    """
    return normalise_group(rewards, unbiased=True)


def has_variance(
    rewards: Float[Array, "*b g"], *, min_deviation: float = 1e-4
) -> Bool[Array, "*b"]:
    """Whether a group can teach anything: not all of its rewards are the same."""
    return jnp.sqrt(jnp.square(_centred(rewards)).mean(axis=-1)) >= min_deviation


def _centred(rewards: Float[Array, "*b g"]) -> Float[Array, "*b g"]:
    """Rewards less their mean: 0 to the last bit where all are the same, however large they are."""
    from_first = rewards - rewards[..., :1]  # a mean of equal numbers is not always that number
    return from_first - from_first.mean(axis=-1, keepdims=True)


def check_rewards(rewards: np.ndarray, names: Sequence[str]) -> None:
    """Raises `RunError` if a reward is not a finite number.

    Args:
      rewards: `[b ...]`, on the host.
      names: of the prompts.
    """
    bad = ~np.isfinite(np.asarray(rewards, np.float64).reshape(len(names), -1))
    if bad.any():
        prompt, rollout = (int(x) for x in np.argwhere(bad)[0])
        value = np.asarray(rewards).reshape(len(names), -1)[prompt, rollout]
        raise RunError(
            f"reward: rollout {rollout} of prompt {names[prompt]!r} has the reward {value}, one of "
            f"{int(bad.sum())} that are no finite numbers. Rewards of answers that do not parse "
            "must be 0."
        )

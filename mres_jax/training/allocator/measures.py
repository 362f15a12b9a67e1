"""What a step of rollouts looked like, in numbers.

Axes: m allocations, n rollouts of one question.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from mres_jax.config import AllocatorRun
from mres_jax.resolution.allocator.beta import Beta
from mres_jax.training.allocator.draws import Drawn
from mres_jax.training.allocator.rollouts import Group
from mres_jax.training.rl import Advantages, proxy_cost, token_cost

BINS = 10  # of the histogram of scales
EDGE = 0.05  # share of the range at each end where scales crowd


class Costs(NamedTuple):
    """Costs of all allocations of a step, `[b m]`, 0 to 1.

    Attributes:
      proxy: linear in the mean scale.
      true: of the visual tokens that it came to.
    """

    proxy: np.ndarray
    true: np.ndarray


def costs_of(groups: Sequence[Group], run: AllocatorRun) -> Costs:
    """Returns both costs of every allocation."""
    limits = {"min_scale": run.network.min_scale, "max_scale": run.network.max_scale}
    means = jnp.asarray([group.mean_scales() for group in groups])
    retentions = jnp.asarray([group.retentions() for group in groups])
    proxy, true = proxy_cost(means, **limits), token_cost(retentions, **limits)
    return Costs(np.asarray(proxy), np.asarray(true))


def measure(
    groups: Sequence[Group],
    drawn: Drawn,
    costs: Costs,
    advantages: Advantages,
    run: AllocatorRun,
) -> dict[str, Any]:
    """Returns the numbers of a step's rollouts by name."""
    tries = [each for group in groups for each in group.tries]
    answers = [answer for each in tries for answer in each.answers]
    rewards = [reward for each in tries for reward in each.rewards]
    scales = np.concatenate([each.scales for each in tries])
    frames = sum(len(group.prompt.frames) for group in groups)
    policy = Beta(jnp.asarray(drawn.alpha[:frames]), jnp.asarray(drawn.beta[:frames]))
    return {
        "reward": _mean([reward.total for reward in rewards]),
        "accuracy": _mean([reward.accuracy for reward in rewards]),
        "format": _mean([reward.format for reward in rewards]),
        "right": _mean([reward.right for reward in rewards]),
        "retention": _mean([each.allocation.retention for each in tries]),
        "visual_tokens": _mean([sum(each.allocation.tokens) for each in tries]),
        "upscaling_wasted": _mean([each.allocation.wasted for each in tries]),
        "proxy_cost": float(costs.proxy.mean()),
        "true_cost": float(costs.true.mean()),
        **scale_numbers(scales, run),
        "scale_spread": _mean([each.scales.std() for each in tries]),
        "mean_scale_spread": _mean([x.std() for x in split_frames(drawn.means, groups)]),
        "beta_entropy": float(policy.entropy().mean()),
        "beta_concentration": float((policy.alpha + policy.beta).mean()),
        "new_tokens": _mean([answer.cost.new_tokens for answer in answers]),
        "empty_answers": sum(not answer.text.strip() for answer in answers),
        "unfinished_answers": sum(answer.finish_reason == "length" for answer in answers),
        "pivot": float(np.mean(advantages.pivot)),
        "advantage_spread": float(np.std(advantages.allocations)),
    }


def scale_numbers(scales: np.ndarray, run: AllocatorRun) -> dict[str, Any]:
    """Returns mean, histogram and how many of the scales crowd at each end of the range."""
    least, most = run.network.min_scale, run.network.max_scale
    counts, _ = np.histogram(np.clip(scales, least, most), bins=BINS, range=(least, most))
    place = (scales - least) / (most - least)
    return {
        "scale": float(scales.mean()),
        "scale_histogram": [round(float(x), 4) for x in counts / len(scales)],
        "scales_at_least": float((place < EDGE).mean()),
        "scales_at_most": float((place > 1 - EDGE).mean()),
    }


def crowding(row: dict[str, Any], run: AllocatorRun) -> str | None:
    """Returns a warning where nearly all scales stand at one end of the range."""
    for name, end in (("scales_at_least", "least"), ("scales_at_most", "largest")):
        if row[name] >= run.crowded:
            return (
                f"step {row['step']}: {100 * row[name]:.0f} % of the scales crowd at the {end} end "
                f"of {run.network.min_scale:g} to {run.network.max_scale:g}: the allocator has "
                "collapsed, or has nothing to gain from telling frames apart"
            )
    return None


def split_frames(values: np.ndarray, groups: Sequence[Group]) -> list[np.ndarray]:
    """Returns numbers of packed frames (the last axis), one array for each question."""
    ends = np.cumsum([len(group.prompt.frames) for group in groups])
    return np.split(values[..., : ends[-1]], ends[:-1], axis=-1)


def _mean(values: Sequence[Any]) -> float:
    return float(np.mean(np.asarray(values, np.float64)))

"""From rewards to advantages: groups that teach, and those that are dropped.

Axes: b questions, m allocations, n rollouts.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from mres_jax.config import AllocatorRun
from mres_jax.training.allocator.measures import Costs
from mres_jax.training.allocator.rollouts import Group
from mres_jax.training.rl import (
    Advantages,
    capo_advantages,
    check_rewards,
    grpo_advantages,
    has_variance,
)


class Judged(NamedTuple):
    """What the rollouts of a step are worth.

    Attributes:
      capo: of allocations and rollouts.
      backbone: of rollouts, for the backbone, `[b m n]`.
      kept: questions that are learnt from, `[b]`.
      counts: how the groups came out, by name.
    """

    capo: Advantages
    backbone: np.ndarray
    kept: np.ndarray
    counts: dict[str, int]


def judge(groups: Sequence[Group], costs: Costs, run: AllocatorRun) -> Judged:
    """Returns advantages of a step.

    Raises:
      RunError: a reward that is no finite number.
    """
    accuracy = np.stack([group.accuracies() for group in groups])
    totals = np.stack([group.totals() for group in groups])
    names = [group.name for group in groups]
    check_rewards(accuracy, names)
    check_rewards(totals, names)
    cost = costs.proxy if run.cost == "linear" else costs.true
    capo = capo_advantages(jnp.asarray(accuracy), jnp.asarray(cost, jnp.float32), run.capo)
    flat = jnp.asarray(totals.reshape(len(groups), -1))
    backbone = np.asarray(grpo_advantages(flat)).reshape(totals.shape)
    if run.backbone_training is not None and run.backbone_training.advantage == "capo":
        backbone = np.asarray(capo.rollouts)
    kept, counts = _sort_out(groups, accuracy, run)
    return Judged(capo, backbone, kept, counts)


def _sort_out(
    groups: Sequence[Group], accuracy: np.ndarray, run: AllocatorRun
) -> tuple[np.ndarray, dict[str, int]]:
    varies = np.asarray(has_variance(jnp.asarray(accuracy.reshape(len(groups), -1))))
    right = np.array([[r.right for each in g.tries for r in each.rewards] for g in groups])
    agree = ~varies
    counts: dict[str, Any] = {
        "groups": len(groups),
        "groups_all_right": int((agree & right.all(axis=1)).sum()),
        "groups_all_wrong": int((agree & ~right.any(axis=1)).sum()),
        "groups_without_variance": int(agree.sum()),
    }
    kept = varies if run.drop_agreeing else np.ones(len(groups), bool)
    return kept, counts | {"groups_dropped": int((~kept).sum())}

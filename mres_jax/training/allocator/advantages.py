"""From rewards to advantages: groups that teach, and those that are dropped.

Axes: b questions, m allocations, n rollouts.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
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
      kept: questions that the allocator learns from, `[b]`.
      kept_backbone: questions that the backbone learns from, `[b]`; none where it is frozen.
      counts: how the groups came out, by name.
    """

    capo: Advantages
    backbone: np.ndarray
    kept: np.ndarray
    kept_backbone: np.ndarray
    counts: dict[str, int]

    @property
    def dropped(self) -> np.ndarray:
        """Questions that nobody learns from, `[b]`."""
        return ~(self.kept | self.kept_backbone)


def judge(groups: Sequence[Group], costs: Costs, run: AllocatorRun) -> Judged:
    """Returns advantages of a step.

    Raises:
      RunError: a reward that is no finite number.
    """
    accuracy = np.stack([group.accuracies() for group in groups])
    totals = np.stack([group.totals() for group in groups])
    right = np.stack([group.rights() for group in groups])
    names = [group.name for group in groups]
    check_rewards(accuracy, names)
    check_rewards(totals, names)
    cost = costs.proxy if run.cost == "linear" else costs.true
    capo = capo_advantages(
        jnp.asarray(accuracy), jnp.asarray(right), jnp.asarray(cost, jnp.float32), run.capo
    )
    settings = run.backbone_training
    if settings is not None and settings.advantage == "capo":
        backbone = np.asarray(capo.rollouts)
    else:
        backbone = np.asarray(grpo_advantages(_flat(totals))).reshape(totals.shape)
    all_right, all_wrong = right.all(axis=(1, 2)), ~right.any(axis=(1, 2))
    varies = np.asarray(has_variance(_flat(accuracy))) | ~(all_right | all_wrong)
    teaches = (backbone != 0).any(axis=(1, 2))
    kept = varies | (not run.drop_agreeing)
    kept_backbone = np.logical_and(teaches | (not run.drop_agreeing), settings is not None)
    counts = {
        "groups": len(groups),
        "groups_all_right": int((~varies & all_right).sum()),
        "groups_all_wrong": int((~varies & all_wrong).sum()),
        "groups_without_variance": int((~varies).sum()),
        "groups_dropped": int((~(kept | kept_backbone)).sum()),
    }
    return Judged(capo, backbone, kept, kept_backbone, counts)


def _flat(rewards: np.ndarray) -> jax.Array:
    """All rollouts of a question in a row, `[b m*n]`."""
    return jnp.asarray(rewards.reshape(len(rewards), -1))

"""Learning from rewards: advantages, clipped objectives, regularisers. Pure functions of arrays."""

from mres_jax.training.rl.capo import (
    CAPO as CAPO,
    Advantages as Advantages,
    capo_advantages as capo_advantages,
    dynamic_pivot as dynamic_pivot,
    proxy_cost as proxy_cost,
    shaping as shaping,
    token_cost as token_cost,
)
from mres_jax.training.rl.groups import (
    check_rewards as check_rewards,
    grpo_advantages as grpo_advantages,
    has_variance as has_variance,
    normalise_group as normalise_group,
)
from mres_jax.training.rl.ppo import (
    PPO as PPO,
    Objective as Objective,
    ppo_objective as ppo_objective,
)
from mres_jax.training.rl.regularisers import (
    Concentration as Concentration,
    Similarity as Similarity,
    concentration_loss as concentration_loss,
    similarity_loss as similarity_loss,
)

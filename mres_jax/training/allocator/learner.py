"""What an allocator learns from: decisions with their advantages, and the loss over them.

Axes: i clips, n packed frames, m allocations of a clip, l tokens of a frame, d width.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mres_jax.resolution.allocator.beta import Beta
from mres_jax.resolution.allocator.features import ClipFeatures
from mres_jax.resolution.allocator.network import AllocatorNetwork, Decision
from mres_jax.training.learner import Metrics, Share
from mres_jax.training.rl import (
    PPO,
    Concentration,
    Similarity,
    concentration_loss,
    ppo_objective,
    similarity_loss,
)


class Decisions(NamedTuple):
    """Actions that were taken for some clips, and what they earned; a pytree.

    Attributes:
      clips: what the allocator saw.
      logits: of the actions, `[m n]`.
      sampled_logprobs: log-density of each as its sampler reported it, nats.
      advantages: of each; the same for all frames of an allocation.
      loss_mask: False in padding and in clips that were dropped.
    """

    clips: ClipFeatures
    logits: Any
    sampled_logprobs: Any
    advantages: Any
    loss_mask: Any


class AllocatorLearner(nnx.Module):
    """A network with the objective that it learns by."""

    def __init__(
        self,
        network: AllocatorNetwork,
        *,
        ppo: PPO,
        similarity: Similarity | None = None,
        concentration: Concentration | None = None,
    ):
        self.network, self.ppo = network, ppo
        self.similarity, self.concentration = similarity, concentration

    def logprobs(self, batch: Decisions) -> tuple[Float[Array, "m n"], Decision]:
        """Log-density of the actions under the network as it is, and what it says."""
        decision = self.network(batch.clips)
        policy = Beta(*(jnp.broadcast_to(x[None], batch.logits.shape) for x in decision.policy))
        return policy.log_density(jnp.asarray(batch.logits)), decision

    def loss(self, batch: Decisions, share: Share) -> tuple[Float[Array, ""], Metrics]:
        """What the batch adds to the loss of its step, and to each metric.

        The clipped objective is a mean over decisions, whatever allocation and clip they are of;
        regularisers are means over the frames of a batch, and batches weigh as many decisions as
        they have. Neither sees clips that were dropped.
        """
        logprobs, decision = self.logprobs(batch)
        mask = jnp.asarray(batch.loss_mask)
        objective = ppo_objective(
            logprobs, batch.sampled_logprobs, batch.advantages, mask, self.ppo
        )
        weight = share.token * mask.sum().astype(jnp.float32)
        metrics = {f"policy_{k}": weight * v for k, v in objective._asdict().items()}
        loss = weight * objective.loss
        for name, (factor, value) in self._regularisers(batch, decision).items():
            loss = loss + weight * factor * value
            metrics[name] = weight * value
        return loss, metrics | {"objective": loss}

    def _regularisers(self, batch: Decisions, decision: Decision) -> dict[str, tuple[float, Array]]:
        kept = jnp.asarray(batch.loss_mask).any(axis=0)
        segment_ids = jnp.where(kept, jnp.asarray(batch.clips.segment_ids), 0)
        terms: dict[str, tuple[float, Array]] = {}
        if self.similarity is not None:
            is_paper = self.similarity.form == "paper"  # its features are the frozen, coarse ones
            features = jnp.asarray(batch.clips.frames).mean(axis=1)
            terms["similarity"] = (
                self.similarity.weight,
                similarity_loss(
                    features if is_paper else decision.features,
                    self.network.scale(decision.policy.mean()),
                    segment_ids,
                    self.similarity,
                ),
            )
        if self.concentration is not None:
            terms["concentration"] = (
                self.concentration.weight,
                concentration_loss(*decision.policy, segment_ids, self.concentration),
            )
        return terms

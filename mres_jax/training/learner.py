"""What is trained, and one step of it.

Axes: p packed patches, t packed positions, V vocabulary.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from mres_jax.data.types import Pack
from mres_jax.models.vlm import PackedVLM
from mres_jax.training.losses import PatchHeads, next_token_loss

Metrics = dict[str, Float[Array, ""]]


class Learner(nnx.Module):
    """A model, and the heads of its auxiliary losses if it has any."""

    def __init__(
        self,
        model: PackedVLM,
        *,
        patch_classes: Mapping[str, int],
        auxiliary_weight: float,
        rngs: nnx.Rngs,
    ):
        self.model = model
        self.auxiliary_weight = auxiliary_weight
        config = model.config
        vision, width = config.vision_config, config.text_config.hidden_size
        merged = vision.spatial_merge_size**2
        heads = {
            "patch": PatchHeads(vision.embed_dim, patch_classes, rngs=rngs),
            "token": PatchHeads(width, patch_classes, patches=merged, rngs=rngs),
        }
        self.heads = nnx.Dict(heads if patch_classes else {})

    def loss(self, pack: Pack) -> tuple[Float[Array, ""], Metrics]:
        """Next-token loss of the pack, plus the weighted auxiliary loss on its patches."""
        model = self.model
        features = model.vision.features(pack.patches, pack.patch_positions, pack.patch_segment_ids)
        visual = model.project(model.vision.merger(features))
        logits = model.logits(model.hidden(pack, visual))
        loss, metrics = next_token_loss(logits, pack.targets, pack.loss_mask)
        seen = {"patch": features, "token": visual}
        for level, heads in self.heads.items():
            auxiliary, accuracy = heads(seen[level], pack.patch_labels)
            loss = loss + self.auxiliary_weight * auxiliary
            metrics |= {f"{level}_{name}": value for name, value in accuracy.items()}
        return loss, metrics


class TrainState(NamedTuple):
    """Everything that a restart needs; a pytree."""

    step: Int[Array, ""]
    params: Any  # nnx.State of a Learner: what is trained
    frozen: Any  # the rest of it: no gradient, no optimiser state
    opt_state: Any


def init_state(
    learner: Learner,
    optimizer: optax.GradientTransformation,
    *,
    is_trained: Callable[[tuple, Any], bool] = lambda path, variable: True,
    frozen_dtype: DTypeLike | None = None,
) -> tuple[nnx.GraphDef, TrainState]:
    """Splits a learner into its static part and the state that steps carry.

    Args:
      learner: the state shares its arrays.
      optimizer: sees the trained parameters only.
      is_trained: of the path and variable of a parameter.
      frozen_dtype: what the others are held in; None leaves them as they are.
    """
    graphdef, params, frozen = nnx.split(learner, is_trained, ...)
    if frozen_dtype is not None:
        frozen = jax.tree.map(lambda x: x.astype(frozen_dtype), frozen)
    opt_state = optimizer.init(nnx.to_pure_dict(params))
    return graphdef, TrainState(jnp.zeros((), jnp.int32), params, frozen, opt_state)


def make_step(
    graphdef: nnx.GraphDef, optimizer: optax.GradientTransformation
) -> Callable[[TrainState, Pack], tuple[TrainState, Metrics]]:
    """Returns the jitted step; it compiles once per rung and takes over the old state's memory."""

    def loss_of(params: Any, frozen: Any, pack: Pack):
        return nnx.merge(graphdef, params, frozen).loss(pack)

    def step(state: TrainState, pack: Pack) -> tuple[TrainState, Metrics]:
        grad = jax.value_and_grad(loss_of, has_aux=True)  # of what is trained alone
        (_, metrics), grads = grad(state.params, state.frozen, pack)
        params, grads = nnx.to_pure_dict(state.params), nnx.to_pure_dict(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, params)
        new: Any = optax.apply_updates(params, updates)
        nnx.replace_by_pure_dict(state.params, new)
        metrics["grad_norm"] = optax.tree.norm(grads)
        return state._replace(step=state.step + 1, opt_state=opt_state), metrics

    return jax.jit(step, donate_argnums=0)

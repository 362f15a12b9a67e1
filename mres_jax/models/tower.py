"""What every vision tower over packs is, and what it gives.

Axes: p packed patches, v packed visual tokens, d vision width, e text width, deep the layers of
DeepStack.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from mres_jax import nn
from mres_jax.data.types import Pack


class Features(NamedTuple):
    """What a tower makes of patches, in block order.

    Attributes:
      last: behind the last layer.
      inner: behind the layers whose features reach the decoder by themselves (DeepStack), or None.
    """

    last: Float[Array, "p d"]
    inner: Float[Array, "deep p d"] | None = None


class Visual(NamedTuple):
    """Visual tokens of a pack, in the order of its views.

    Attributes:
      tokens: what stands in their places before the first layer of the decoder.
      deepstack: what is added there behind each of its first layers, or None.
    """

    tokens: Float[Array, "v e"]
    deepstack: Float[Array, "deep v e"] | None = None


class Tower(nnx.Module):
    """A native-resolution encoder of packed patches; subclasses add `blocks` and the rest."""

    blocks: Any  # `nn.VisionBlock`, stacked
    pos_embed: nn.PositionTable  # where its config asks for one

    def __init__(
        self,
        config: Any,
        *,
        use_bias: bool = False,
        dtype: DTypeLike = jnp.float32,
        remat: nn.Remat = "none",
        rngs: nnx.Rngs,
    ):
        """Makes the embedding of patches, with a bias or without.

        `config` is a `TowerConfig`, or has its names of sizes.
        """
        self.config = config
        self.remat: nn.Remat = remat
        self.patch_embed = nn.PatchEmbed(
            patch_size=config.patch_size,
            temporal_patch_size=config.temporal_patch_size,
            out_size=config.width,
            mean=config.image_mean,
            std=config.image_std,
            use_bias=use_bias,
            dtype=dtype,
            rngs=rngs,
        )

    def embed(self, pack: Pack, order: Int[Array, " p"] | None = None) -> Float[Array, "p d"]:
        """Embedded patches, in block order or in another one."""
        patches, still = pack.patches, pack.still
        if order is not None:
            patches, still = patches[order], None if still is None else still[order]
        return self.patch_embed(patches, still)

    def positions_of(self, pack: Pack) -> Float[Array, "p d"]:
        """What each patch reads of the table of positions, where there is one."""
        if pack.position_weights is None:
            raise ValueError(
                f"{type(self).__name__}: the pack has no position_weights. Assemble it with this "
                "model's spec."
            )
        return self.pos_embed(pack.position_weights)

    def features(self, pack: Pack) -> Features:
        """Features of every patch, before the merge; padding is never read."""
        raise NotImplementedError

    def merge(self, features: Features) -> Visual:
        """Visual tokens of the tower's own width."""
        raise NotImplementedError

    def __call__(self, pack: Pack) -> Visual:
        return self.merge(self.features(pack))


def encoder_blocks(config: Any, *, dtype: DTypeLike, rngs: nnx.Rngs) -> nn.EncoderBlock:
    """Returns the stacked layers of a CLIP or SigLIP tower by its configuration."""

    def make_block(rngs: nnx.Rngs) -> nn.EncoderBlock:
        return nn.EncoderBlock(
            config.hidden_size,
            config.intermediate_size,
            num_heads=config.num_attention_heads,
            activation=config.hidden_act,
            epsilon=config.layer_norm_eps,
            dtype=dtype,
            rngs=rngs,
        )

    return nn.stack_layers(make_block, config.num_hidden_layers, rngs)

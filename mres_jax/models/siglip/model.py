"""SigLIP's picture encoder over packs.

Axes: p packed patches, v packed visual tokens, d vision width.
"""

import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike

from mres_jax import nn, ops
from mres_jax.data.types import Pack
from mres_jax.models.siglip.config import SiglipConfig
from mres_jax.models.tower import Features, Tower, Visual, encoder_blocks


class SiglipTower(Tower):
    """Features of patches with learned positions, views of any size in one pack.

    The pooling head of the released towers is no part of it.

    Reference:
      Zhai et al., 2023, "SigLIP", arXiv:2303.15343; Tschannen et al., 2025, "SigLIP 2",
      arXiv:2502.14786.
    """

    config: SiglipConfig

    def __init__(
        self,
        config: SiglipConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        remat: nn.Remat = "none",
        rngs: nnx.Rngs,
    ):
        super().__init__(config, use_bias=True, dtype=dtype, remat=remat, rngs=rngs)
        size, self.dtype = config.hidden_size, dtype
        self.positions = nn.PositionTable(config.table_side, size, rngs=rngs)
        self.blocks = encoder_blocks(config, dtype=dtype, rngs=rngs)
        self.post_norm = nn.LayerNorm(size, epsilon=config.layer_norm_eps)

    def features(self, pack: Pack) -> Features:
        """Features of every patch behind the last norm; padding is never read."""
        positions = self.positions(pack.position_weights)
        x = self.embed(pack) + positions.astype(self.dtype)
        plan = ops.make_plan(segment_ids=pack.patch_segment_ids)
        x, _ = nn.scan_layers(
            self.blocks, lambda block, x, _: (block(x, plan), None), x, remat=self.remat
        )
        return Features(self.post_norm(x))

    def merge(self, features: Features) -> Visual:
        """Visual tokens: the patches of a block side by side, known as pixel shuffle."""
        block = self.config.spatial_merge_size**2
        return Visual(rearrange(features.last, "(v m) d -> v (m d)", m=block))

"""Qwen2.5-VL over packs.

Axes: p packed patches, d vision width, l layers.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Int

from mres_jax import nn, ops
from mres_jax.data.types import Pack
from mres_jax.models.qwen2_5_vl.config import VisionConfig
from mres_jax.models.qwen2_vl.model import QwenVL
from mres_jax.models.tower import Features, Tower, Visual


class VisionTower(Tower):
    """Native-resolution encoder in which most layers look at a window of the view only.

    Patches are brought together window by window; attention inside windows is then attention of
    packed segments, as that inside views is. Order and segments come with the pack.

    Reference:
      Bai et al., 2025, "Qwen2.5-VL Technical Report", arXiv:2502.13923, section 2.1.1.
    """

    config: VisionConfig

    def __init__(
        self,
        config: VisionConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        remat: nn.Remat = "none",
        rngs: nnx.Rngs,
    ):
        super().__init__(config, dtype=dtype, remat=remat, rngs=rngs)

        def make_mlp(rngs: nnx.Rngs) -> nn.GatedMLP:
            return nn.GatedMLP(
                config.width, config.mlp_width, use_bias=True, dtype=dtype, rngs=rngs
            )

        def make_block(rngs: nnx.Rngs) -> nn.VisionBlock:
            return nn.VisionBlock(
                config.width,
                num_heads=config.num_heads,
                make_mlp=make_mlp,
                make_norm=nn.RMSNorm,
                dtype=dtype,
                rngs=rngs,
            )

        self.blocks = nn.stack_layers(make_block, config.depth, rngs)
        self.merger = nn.PatchMerger(
            in_size=config.width,
            out_size=config.out_width,
            merge_size=config.spatial_merge_size,
            make_norm=nn.RMSNorm,
            dtype=dtype,
            rngs=rngs,
        )

    def features(self, pack: Pack) -> Features:
        """Features of every patch, before the merge, back in block order."""
        if pack.windows is None:
            raise ValueError(
                "Qwen2.5-VL: the pack has no windows. Assemble it with this model's spec."
            )
        order, window_ids = pack.windows
        # A window lies in one frame, so the segments of views are where they were.
        whole = ops.make_plan(segment_ids=pack.patch_segment_ids)
        windowed = ops.make_plan(segment_ids=window_ids)
        rotary = nn.vision_rotary(pack.patch_positions[order], head_dim=self.config.head_dim)
        is_whole = np.isin(np.arange(self.config.depth), self.config.fullatt_block_indexes)

        def step(block, x, is_whole):
            plan = jax.tree.map(lambda a, b: jnp.where(is_whole, a, b), whole, windowed)
            return block(x, rotary, plan), None

        x = self.embed(pack, order)
        x, _ = nn.scan_layers(self.blocks, step, x, jnp.asarray(is_whole), remat=self.remat)
        return Features(x[_inverse(order)])

    def merge(self, features: Features) -> Visual:
        """Visual tokens."""
        return Visual(self.merger(features.last))


class Qwen2_5VL(QwenVL):
    """Visual tokens enter the decoder as the merger leaves them."""

    TOWER = VisionTower


def _inverse(order: Int[Array, " p"]) -> Int[Array, " p"]:
    """The place at which each patch stands."""
    places = jnp.arange(order.shape[0], dtype=order.dtype)
    return jnp.zeros_like(order).at[order].set(places, unique_indices=True)

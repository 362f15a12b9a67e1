"""Qwen3-VL over packs.

Axes: p packed patches, d vision width, deep the layers of DeepStack.
"""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from mres_jax import nn, ops
from mres_jax.data.types import Pack
from mres_jax.models.qwen2_vl.model import QwenVL
from mres_jax.models.qwen3_vl.config import VisionConfig
from mres_jax.models.tower import Features, Tower, Visual


class VisionTower(Tower):
    """Native-resolution encoder with a learned table of positions beside rotary ones.

    Features of some inner layers reach the decoder by themselves, each through a merger of its own
    (DeepStack).

    Reference:
      Bai et al., 2025, "Qwen3-VL Technical Report", arXiv:2511.21631, section 2; Meng et al., 2024,
      "DeepStack", arXiv:2406.04334.
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
        super().__init__(config, use_bias=True, dtype=dtype, remat=remat, rngs=rngs)
        self.pos_embed = nn.PositionTable(config.position_side, config.width, rngs=rngs)

        def make_mlp(rngs: nnx.Rngs) -> nn.MLP:
            return nn.MLP(
                config.width, config.mlp_width, activation=config.hidden_act, dtype=dtype, rngs=rngs
            )

        def make_block(rngs: nnx.Rngs) -> nn.VisionBlock:
            return nn.VisionBlock(
                config.width, num_heads=config.num_heads, make_mlp=make_mlp, dtype=dtype, rngs=rngs
            )

        def make_merger(rngs: nnx.Rngs, *, norm_blocks: bool = False) -> nn.PatchMerger:
            return nn.PatchMerger(
                in_size=config.width,
                out_size=config.out_width,
                merge_size=config.spatial_merge_size,
                norm_blocks=norm_blocks,
                dtype=dtype,
                rngs=rngs,
            )

        self.blocks = nn.stack_layers(make_block, config.depth, rngs)
        self.merger = make_merger(rngs)
        if config.deepstack_visual_indexes:
            self.deepstack = nn.stack_layers(
                lambda rngs: make_merger(rngs, norm_blocks=True),
                len(config.deepstack_visual_indexes),
                rngs,
            )

    def features(self, pack: Pack) -> Features:
        """Features of every patch, before the merge, and those of the layers of DeepStack."""
        positions = self.positions_of(pack)
        plan = ops.make_plan(segment_ids=pack.patch_segment_ids)
        rotary = nn.vision_rotary(pack.patch_positions, head_dim=self.config.head_dim)
        x = self.embed(pack)
        x = x + positions.astype(x.dtype)
        kept = self.config.deepstack_visual_indexes
        places = np.full(self.config.depth, len(kept), np.int32)  # behind the last: kept nowhere
        places[list(kept)] = np.arange(len(kept))

        def step(block, carry, place):
            x, inner = carry
            x = block(x, rotary, plan)
            return (x, inner.at[place].set(x, mode="drop")), None

        inner = jnp.zeros((len(kept), *x.shape), x.dtype)
        (x, inner), _ = nn.scan_layers(
            self.blocks, step, (x, inner), jnp.asarray(places), remat=self.remat
        )
        return Features(x, inner if kept else None)

    def merge(self, features: Features) -> Visual:
        """Visual tokens, and what is added to them inside the decoder."""
        tokens = self.merger(features.last)
        if features.inner is None:
            return Visual(tokens)

        def step(merger, nothing, x):
            return nothing, merger(x)

        return Visual(tokens, nn.scan_layers(self.deepstack, step, None, features.inner)[1])


class Qwen3VL(QwenVL):
    """Visual tokens enter the decoder before its first layer and behind those that follow."""

    TOWER = VisionTower

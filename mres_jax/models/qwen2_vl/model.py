"""Qwen2-VL over packs.

Axes: p packed patches, v packed visual tokens, d vision width, e text width.
"""

from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from mres_jax import nn, ops
from mres_jax.data.types import Pack
from mres_jax.models.qwen2.model import Decoder
from mres_jax.models.qwen2_vl.config import QwenVLConfig, VisionConfig
from mres_jax.models.tower import Features, Tower, Visual
from mres_jax.models.vlm import PackedVLM


class VisionTower(Tower):
    """Native-resolution encoder of packed patches: rotary by row and column, one segment a view.

    A learned table of positions, read as Qwen3-VL reads its own, is ours and off in released
    models: rotary positions say where patches stand to each other, never where in the picture. It
    is added behind the last layer, where what the layers added cannot drown it.

    Reference:
      Wang et al., 2024, "Qwen2-VL", arXiv:2409.12191, section 2.1.
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

        def make_mlp(rngs: nnx.Rngs) -> nn.MLP:
            return nn.MLP(
                config.width, config.mlp_width, activation=config.hidden_act, dtype=dtype, rngs=rngs
            )

        def make_block(rngs: nnx.Rngs) -> nn.VisionBlock:
            return nn.VisionBlock(
                config.width, num_heads=config.num_heads, make_mlp=make_mlp, dtype=dtype, rngs=rngs
            )

        self.blocks = nn.stack_layers(make_block, config.depth, rngs)
        if config.position_side:
            self.pos_embed = nn.PositionTable(config.position_side, config.width, rngs=rngs)
        if config.merge == "avgpool":
            self.merger = nn.AveragePooling(merge_size=config.spatial_merge_size)
        else:
            self.merger = nn.PatchMerger(
                in_size=config.width,
                out_size=config.out_width,
                merge_size=config.spatial_merge_size,
                dtype=dtype,
                rngs=rngs,
            )

    def features(self, pack: Pack) -> Features:
        """Features of every patch, before the merge."""
        plan = ops.make_plan(segment_ids=pack.patch_segment_ids)
        rotary = nn.vision_rotary(pack.patch_positions, head_dim=self.config.head_dim)

        def step(block, x, _):
            return block(x, rotary, plan), None

        x, _ = nn.scan_layers(self.blocks, step, self.embed(pack), remat=self.remat)
        if self.config.position_side:
            x = x + self.positions_of(pack).astype(x.dtype)
        return Features(x)

    def merge(self, features: Features) -> Visual:
        """Visual tokens."""
        return Visual(self.merger(features.last))


class QwenVL(PackedVLM):
    """A tower that ends at the decoder's width, and the decoder: all generations."""

    TOWER: ClassVar[Any]  # each narrows its `config`

    def __init__(
        self,
        config: QwenVLConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        remat: nn.Remat = "none",
        rngs: nnx.Rngs,
    ):
        self.config = config
        self.vision = self.TOWER(config.vision_config, dtype=dtype, remat=remat, rngs=rngs)
        self.text = Decoder(config.text_config, dtype=dtype, remat=remat, rngs=rngs)


class Qwen2VL(QwenVL):
    """Visual tokens enter the decoder as the merger leaves them."""

    TOWER = VisionTower

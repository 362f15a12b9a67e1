"""Qwen2-VL over packs.

Axes: p packed patches, r values of a patch row, v packed visual tokens, d vision width, e text
width.
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, UInt8

from mres_jax import nn, ops
from mres_jax.models.qwen2.model import Decoder
from mres_jax.models.qwen2_vl.config import Qwen2VLConfig, VisionConfig
from mres_jax.models.vlm import PackedVLM


class VisionBlock(nnx.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, config: VisionConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        size = config.embed_dim
        self.norm1 = nn.LayerNorm(size)
        self.attn = nn.VisionAttention(size, num_heads=config.num_heads, dtype=dtype, rngs=rngs)
        self.norm2 = nn.LayerNorm(size)
        self.mlp = nn.MLP(
            size,
            int(size * config.mlp_ratio),
            activation=config.hidden_act,
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(
        self, x: Float[Array, "p d"], rotary: nn.Rotary, plan: ops.Plan
    ) -> Float[Array, "p d"]:
        x = x + self.attn(self.norm1(x), rotary, plan)
        return x + self.mlp(self.norm2(x))


class VisionTower(nnx.Module):
    """Native-resolution encoder of packed patches: rotary by row and column, one segment a view.

    Reference:
      Wang et al., 2024, "Qwen2-VL", arXiv:2409.12191, section 2.1.
    """

    def __init__(
        self,
        config: VisionConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        remat: nn.Remat = "none",
        rngs: nnx.Rngs,
    ):
        self.config = config
        self.remat: nn.Remat = remat
        self.patch_embed = nn.PatchEmbed(
            patch_size=config.patch_size,
            temporal_patch_size=config.temporal_patch_size,
            out_size=config.embed_dim,
            mean=config.image_mean,
            std=config.image_std,
            dtype=dtype,
            rngs=rngs,
        )
        self.blocks = nn.stack_layers(
            lambda r: VisionBlock(config, dtype=dtype, rngs=r), config.depth, rngs
        )
        if config.merge == "avgpool":
            self.merger = nn.AveragePooling(merge_size=config.spatial_merge_size)
        else:
            self.merger = nn.PatchMerger(
                in_size=config.embed_dim,
                out_size=config.hidden_size,
                merge_size=config.spatial_merge_size,
                dtype=dtype,
                rngs=rngs,
            )

    def features(
        self,
        patches: UInt8[Array, "p r"] | Float[Array, "p r"],
        positions: Int[Array, "p 2"],
        segment_ids: Int[Array, " p"],
    ) -> Float[Array, "p d"]:
        """Features of every patch, before the merge."""
        plan = ops.make_plan(segment_ids=segment_ids)
        rotary = nn.vision_rotary(positions, head_dim=self.config.head_dim)

        def step(block, x, _):
            return block(x, rotary, plan), None

        x, _ = nn.scan_layers(self.blocks, step, self.patch_embed(patches), remat=self.remat)
        return x

    def __call__(
        self,
        patches: UInt8[Array, "p r"] | Float[Array, "p r"],
        positions: Int[Array, "p 2"],
        segment_ids: Int[Array, " p"],
    ) -> Float[Array, "v e"]:
        """Visual tokens."""
        return self.merger(self.features(patches, positions, segment_ids))


class Qwen2VL(PackedVLM):
    """Tower and decoder; visual tokens enter the decoder as the merger leaves them."""

    def __init__(
        self,
        config: Qwen2VLConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        remat: nn.Remat = "none",
        rngs: nnx.Rngs,
    ):
        self.config = config
        self.vision = VisionTower(config.vision_config, dtype=dtype, remat=remat, rngs=rngs)
        self.text = Decoder(config.text_config, dtype=dtype, remat=remat, rngs=rngs)

    def project(self, visual: Float[Array, "v e"]) -> Float[Array, "v e"]:
        """Visual tokens at the decoder's width: already so."""
        return visual

"""CLIP's picture encoder over packs.

Axes: p packed patches, r values of a patch row, d vision width, o rows or columns of the table of
positions.
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from mres_jax import nn, ops
from mres_jax.data.types import Pack
from mres_jax.models.clip.config import ClipConfig
from mres_jax.models.tower import Features, Tower, Visual, encoder_blocks


class ClipTower(Tower):
    """Features of patches with learned positions, views of any size in one pack.

    Layers behind `feature_layer` and the last norm are kept though nothing runs them, so that
    files go out as they came in.

    Reference:
      Radford et al., 2021, "CLIP", arXiv:2103.00020; Dosovitskiy et al., 2020, arXiv:2010.11929.
    """

    def __init__(
        self,
        config: ClipConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        remat: nn.Remat = "none",
        rngs: nnx.Rngs,
    ):
        self.config, self.dtype = config, dtype
        self.remat: nn.Remat = remat
        size = config.hidden_size
        self.patch_embed = nn.PatchEmbed(
            patch_size=config.patch_size,
            temporal_patch_size=1,
            out_size=size,
            mean=config.image_mean,
            std=config.image_std,
            dtype=dtype,
            rngs=rngs,
        )
        draw = nnx.initializers.normal(0.02)
        self.class_embedding = nnx.Param(draw(rngs.params(), (size,)))
        self.positions = nnx.Param(draw(rngs.params(), (config.table_side**2 + 1, size)))
        self.pre_norm = nn.LayerNorm(size, epsilon=config.layer_norm_eps)
        self.blocks = encoder_blocks(config, dtype=dtype, rngs=rngs)
        self.post_norm = nn.LayerNorm(size, epsilon=config.layer_norm_eps)

    def embed_patches(
        self,
        patches: UInt8[Array, "p r"] | Float[Array, "p r"],
        position_weights: Float[Array, "p 2 o"],
    ) -> Float[Array, "p d"]:
        """Patches with their positions, before the first norm.

        `position_weights`: what rows and columns of the table count, see `nn.read_positions`.
        """
        positions = nn.read_positions(self.positions[...][1:], position_weights)
        return self.patch_embed(patches) + positions.astype(self.dtype)

    def run(
        self, x: Float[Array, "p d"], plan: ops.Plan, start: int, stop: int
    ) -> Float[Array, "p d"]:
        """The layers from `start` to before `stop`."""
        if start == stop:
            return x
        layers = nn.slice_layers(self.blocks, start, stop)
        x, _ = nn.scan_layers(layers, lambda b, x, _: (b(x, plan), None), x, remat=self.remat)
        return x

    def features(self, pack: Pack) -> Features:
        """Features of every patch; padding is zeros."""
        x = self.embed_patches(pack.patches, pack.position_weights)
        stop = self.config.num_layers_run
        if not self.config.class_token:
            plan = ops.make_plan(segment_ids=pack.patch_segment_ids)
            return Features(self.run(self.pre_norm(x), plan, 0, stop))
        rows = nn.ClassRows.of(pack.patch_segment_ids, pack.grid_thw.shape[0])
        token = self.class_embedding[...] + self.positions[...][0]
        x = self.pre_norm(rows.insert(x, token))
        plan = ops.make_plan(segment_ids=rows.segment_ids)
        return Features(rows.drop(self.run(x, plan, 0, stop)))

    def merge(self, features: Features) -> Visual:
        """Visual tokens: every patch is one."""
        return Visual(features.last)

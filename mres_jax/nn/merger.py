"""Patches -> visual tokens: each `merge_size x merge_size` block becomes one vector.

Patches arrive in block order, so a block is `merge_size**2` consecutive rows and no pack boundary
falls inside one. Axes: p packed patches, v packed visual tokens, d vision width, e output width.
"""

import functools
from collections.abc import Callable

import jax
from einops import rearrange, reduce
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from mres_jax.nn.norms import LayerNorm


class PatchMerger(nnx.Module):
    """Concatenates the normalised patches of a block and mixes them in two linear layers.

    `norm_blocks` normalises whole blocks instead of the patches in them.

    Reference:
      Wang et al., 2024, "Qwen2-VL", arXiv:2409.12191, section 2.1; what NativeRes-LLaVA runs.
      `norm_blocks` is how Qwen3-VL merges the features of its inner layers, as read in
      `Qwen3VLVisionPatchMerger` of `transformers` 5.23.
    """

    def __init__(
        self,
        *,
        in_size: int,
        out_size: int,
        merge_size: int,
        make_norm: Callable[[int], nnx.Module] = LayerNorm,
        norm_blocks: bool = False,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        linear = functools.partial(nnx.Linear, dtype=dtype, rngs=rngs)
        block_size = in_size * merge_size**2
        self.merge_size, self.norm_blocks = merge_size, norm_blocks
        self.norm = make_norm(block_size if norm_blocks else in_size)
        self.up = linear(block_size, block_size)
        self.down = linear(block_size, out_size)

    def __call__(self, patches: Float[Array, "p d"]) -> Float[Array, "v e"]:
        if not self.norm_blocks:
            patches = self.norm(patches)
        blocks = rearrange(patches, "(v m) d -> v (m d)", m=self.merge_size**2)
        if self.norm_blocks:
            blocks = self.norm(blocks)
        return self.down(jax.nn.gelu(self.up(blocks), approximate=False))


class AveragePooling(nnx.Module):
    """Mean of the patches of a block: the compression of the NativeRes-LLaVA article."""

    def __init__(self, *, merge_size: int):
        self.merge_size = merge_size

    def __call__(self, patches: Float[Array, "p d"]) -> Float[Array, "v d"]:
        return reduce(patches, "(v m) d -> v d", "mean", m=self.merge_size**2)

"""Pixels -> vision width.

Axes: p packed patches, r values of one patch row (channel, frame, row, column), d vision width.
"""

import jax.numpy as jnp
from einops import rearrange, reduce
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, UInt8


class PatchEmbed(nnx.Module):
    """A strided convolution over whole patches, as one matrix product.

    Still rows hold one frame, `3 * patch_size**2` values: a still picture repeats its frame, so the
    temporal weights are summed instead (Qwen2-VL duplicates the pixels; the sums are equal up to
    rounding). Rows of `temporal_patch_size` frames are taken as they are, but for those that
    `still` marks: of these the first frame alone counts, and they come out as still rows do, to the
    last bit. `uint8` rows are normalised here; floats are taken as normalised already.
    """

    def __init__(
        self,
        *,
        patch_size: int,
        temporal_patch_size: int,
        out_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        use_bias: bool = False,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.patch_size = patch_size
        self.temporal_patch_size = temporal_patch_size
        self.mean, self.std, self.dtype = mean, std, dtype
        rows = 3 * temporal_patch_size * patch_size**2
        init = nnx.initializers.lecun_normal()
        self.kernel = nnx.Param(init(rngs.params(), (rows, out_size)))
        self.bias = nnx.Param(jnp.zeros(out_size)) if use_bias else None

    def __call__(
        self,
        patches: UInt8[Array, "p r"] | Float[Array, "p r"],
        still: Bool[Array, " p"] | None = None,
    ) -> Float[Array, "p d"]:
        kernel = self.kernel[...].astype(jnp.float32)  # the sum of two halves in bfloat16 is off
        pixels, frames = self.patch_size**2, self.temporal_patch_size
        summed = reduce(kernel, "(c t x) d -> (c x) d", "sum", c=3, t=frames)
        if patches.shape[1] == 3 * pixels and frames > 1:
            kernel, still = summed, None
        elif patches.shape[1] != 3 * frames * pixels:
            raise ValueError(
                f"PatchEmbed: rows of {patches.shape[1]} values; a still row has {3 * pixels}, "
                f"a row of {frames} frames {3 * frames * pixels}."
            )
        if patches.dtype == jnp.uint8:
            patches = normalise(patches, self.mean, self.std)
        out = patches.astype(self.dtype) @ kernel.astype(self.dtype)
        if still is not None:
            first = rearrange(patches, "p (c t x) -> t p (c x)", c=3, t=frames)[0]
            out = jnp.where(
                still[:, None], first.astype(self.dtype) @ summed.astype(self.dtype), out
            )
        return out if self.bias is None else out + self.bias[...].astype(self.dtype)[None]


def normalise(
    patches: UInt8[Array, "p r"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Array, "p r"]:
    """`(pixel / 255 - mean) / std` for rows whose slowest axis is the colour channel, float32."""
    per_channel = patches.shape[1] // 3
    spread = [jnp.repeat(jnp.asarray(x, jnp.float32), per_channel)[None] for x in (mean, std)]
    return (patches.astype(jnp.float32) / 255.0 - spread[0]) / spread[1]

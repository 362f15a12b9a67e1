"""ConvNeXt over canvases: views of several sizes, zeros around them.

Axes: n canvases of one shape, y rows, x columns, z channels of a map.
"""

import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, UInt8

from mres_jax import nn
from mres_jax.models.convnext.config import STEM, ConvNeXtConfig

Pixels = UInt8[Array, "n h w 3"] | Float[Array, "n h w 3"]


class ConvNeXtBlock(nnx.Module):
    """Depthwise convolution, norm and MLP; what they add is scaled channel by channel.

    Reference:
      Liu et al., 2022, "A ConvNet for the 2020s", arXiv:2201.03545, figure 4; layer scale:
      Touvron et al., 2021, arXiv:2103.17239.
    """

    def __init__(self, config: ConvNeXtConfig, size: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.conv = nn.DepthwiseConv(size, width=config.kernel_size, dtype=dtype, rngs=rngs)
        self.norm = nn.LayerNorm(size, epsilon=config.layer_norm_eps)
        self.mlp = nn.MLP(size, config.mlp_ratio * size, activation="gelu", dtype=dtype, rngs=rngs)
        self.scale = nnx.Param(jnp.full(size, config.layer_scale_init_value, jnp.float32))

    def __call__(self, x: nn.Map, mask: nn.Mask) -> nn.Map:
        added = self.mlp(self.norm(self.conv(x, mask)))
        return x + added * self.scale[...].astype(x.dtype)[None, None, None]


class ConvNeXtStage(nnx.Module):
    """Layers of one width; all but the first stage begin by halving each side."""

    def __init__(
        self,
        config: ConvNeXtConfig,
        stage: int,
        *,
        dtype: DTypeLike,
        remat: nn.Remat,
        rngs: nnx.Rngs,
    ):
        size = config.hidden_sizes[stage]
        self.remat: nn.Remat = remat
        if stage:
            before = config.hidden_sizes[stage - 1]
            self.norm = nn.LayerNorm(before, epsilon=config.layer_norm_eps)
            self.down = nnx.Linear(4 * before, size, dtype=dtype, rngs=rngs)
        self.blocks = nn.stack_layers(
            lambda r: ConvNeXtBlock(config, size, dtype=dtype, rngs=r), config.depths[stage], rngs
        )

    def __call__(self, x: Float[Array, "n b a w"], mask: nn.Mask) -> Float[Array, "n y x z"]:
        if hasattr(self, "down"):
            x = self.down(_blocks(self.norm(x), 2))
        x, _ = nn.scan_layers(
            self.blocks, lambda block, x, _: (block(x, mask), None), x, remat=self.remat
        )
        return x


class ConvNeXt(nnx.Module):
    """The trunk: a stem and four stages, no norm and no head behind them."""

    def __init__(
        self,
        config: ConvNeXtConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        remat: nn.Remat = "none",
        rngs: nnx.Rngs,
    ):
        self.config, self.dtype = config, dtype
        first = config.hidden_sizes[0]
        self.stem = nnx.Linear(3 * STEM**2, first, dtype=dtype, rngs=rngs)
        self.stem_norm = nn.LayerNorm(first, epsilon=config.layer_norm_eps)
        self.stages = nnx.List(
            ConvNeXtStage(config, stage, dtype=dtype, remat=remat, rngs=rngs)
            for stage in range(len(config.depths))
        )

    def start(self, pixels: Pixels) -> Float[Array, "n y x z"]:
        """The stem: `STEM` pixels a side become one position."""
        if pixels.dtype == jnp.uint8:
            config = self.config
            mean, std = (
                jnp.asarray(each, jnp.float32)[None, None, None]
                for each in (config.image_mean, config.image_std)
            )
            pixels = (pixels.astype(jnp.float32) / 255.0 - mean) / std
        return self.stem_norm(self.stem(_blocks(pixels.astype(self.dtype), STEM)))

    def mask(self, pixels: Pixels, sizes: Int[Array, "n 2"], stage: int) -> Bool[Array, "n y x"]:
        """Which positions of a stage show the views; arguments as when the tower is called."""
        stride = STEM * 2**stage
        height, width = (extent // stride for extent in pixels.shape[1:3])
        return nn.canvas_mask(sizes, height, width, stride=stride)

    def __call__(self, pixels: Pixels, sizes: Int[Array, "n 2"]) -> Float[Array, "n y x z"]:
        """The map of the last stage.

        Args:
          pixels: canvases, a view in the upper left corner of each; floats are normalised already,
            for gradients with respect to them.
          sizes: height and width of the views, pixels, whole positions of the last stage.
        """
        x = self.start(pixels)
        for number, stage in enumerate(self.stages):
            x = stage(x, self.mask(pixels, sizes, number))
        return x


def _blocks(x: Float[Array, "n h w c"], side: int) -> Float[Array, "n y x z"]:
    """Each square of `side` positions as one, channel by channel as files hold convolutions."""
    return rearrange(x, "n (y i) (x j) c -> n y x (c i j)", i=side, j=side)

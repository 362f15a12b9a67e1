"""The dual tower of LLaVA-HR over packs and canvases.

Axes: p packed patches, d vision width; n canvases, y rows, x columns, z channels of a map.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from mres_jax import nn, ops
from mres_jax.data.resampling import resize_matrix
from mres_jax.data.types import Canvases, Pack
from mres_jax.models.clip.model import ClipTower
from mres_jax.models.convnext.model import ConvNeXt
from mres_jax.models.llava_hr.config import DualConfig
from mres_jax.models.tower import Features, Tower, Visual


class Fusion(nnx.Module):
    """The features of both towers as one; released code projects either, the article only one."""

    def __init__(self, config: DualConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        size = config.low.hidden_size
        if config.final_fusion == "two_projections":
            self.low = nnx.Linear(size, size, dtype=dtype, rngs=rngs)
        self.high = nnx.Linear(config.high.out_size, size, dtype=dtype, rngs=rngs)

    def of_low(self, x: Float[Array, "p d"]) -> Float[Array, "p d"]:
        """What the ViT's features become."""
        return self.low(x) if hasattr(self, "low") else x


class Shared(NamedTuple):
    """Canvases of one shape, and what both towers have of them."""

    canvases: Canvases
    cells: nn.Cells  # of the ViT's patches
    grid_mask: nn.Mask  # of these cells
    high_mask: nn.Mask  # of the ConvNeXt's last map


class DualTower(Tower):
    """A ViT on packed patches of the small picture, a ConvNeXt on canvases with the large one.

    Reference:
      Luo et al., 2024, "Feast Your Eyes", arXiv:2403.03003, section 3, figure 3; order of layers
      and adapters, alignment and fusion as the forward pass of luogen1996/LLaVA-HR has them.
    """

    def __init__(
        self,
        config: DualConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        remat: nn.Remat = "none",
        rngs: nnx.Rngs,
    ):
        self.config = config
        self.low = ClipTower(config.low, dtype=dtype, remat=remat, rngs=rngs)
        self.high = ConvNeXt(config.high, dtype=dtype, remat=remat, rngs=rngs)
        size, told = config.low.hidden_size, self._told_sizes()
        self.adapters = nnx.List(
            nn.MRAdapter(
                target_size=width,
                source_size=config.high.out_size if width == size else size,
                options=config.adapter,
                dtype=dtype,
                rngs=rngs,
            )
            for width in told
        )
        self.fusion = Fusion(config, dtype=dtype, rngs=rngs)

    def _told_sizes(self) -> list[int]:
        """Channels of what each adapter changes."""
        config = self.config
        if config.direction == "high_to_low":
            return [config.low.hidden_size] * config.num_adapters
        stages = len(config.high.hidden_sizes)
        return list(config.high.hidden_sizes[stages - config.num_adapters :])

    def features(self, pack: Pack) -> Features:
        """Features of every patch; padding is zeros."""
        shared = [self._shared(canvases, pack) for canvases in pack.canvases]
        x = self.low.pre_norm(self.low.embed_patches(pack.patches, pack.position_weights))
        plan = ops.make_plan(segment_ids=pack.patch_segment_ids)
        if self.config.direction == "high_to_low":
            maps = self._maps([s.canvases for s in shared])
            x = self._told_low(x, plan, maps, shared)
        else:
            x = self.low.run(x, plan, 0, self.config.low.num_layers_run)
            maps = [self._told_high(x, s) for s in shared]
        out = self.fusion.of_low(x)
        for high, s in zip(maps, shared, strict=True):
            out = out + s.cells.gather(_aligned(self.fusion.high(high), s.cells.shape))
        seen = pack.patch_segment_ids[:, None] > 0
        return Features(jnp.where(seen, out, jnp.zeros((), out.dtype)))

    def merge(self, features: Features) -> Visual:
        """Visual tokens: every patch is one."""
        return Visual(features.last)

    def _maps(self, canvases: list[Canvases]) -> list[jax.Array]:
        """The ConvNeXt's last maps; of several shapes most canvases are empty, and are skipped."""
        if len(canvases) == 1:
            return [self.high(c.pixels, c.sizes) for c in canvases]
        return [jax.lax.map(self._map_if_used, c) for c in canvases]

    def _map_if_used(self, canvas: Canvases) -> Float[Array, "y x z"]:
        """Of one canvas; zeros where no view is on it."""
        pixels, size, view = canvas

        def run() -> Float[Array, "y x z"]:
            return self.high(pixels[None], size[None])[0]

        blank = jax.eval_shape(run)
        return jax.lax.cond(view > 0, run, lambda: jnp.zeros(blank.shape, blank.dtype))

    def _told_low(
        self,
        x: Float[Array, "p d"],
        plan: ops.Plan,
        maps: list[jax.Array],  # `[n y x z]` of each shape
        shared: list[Shared],
    ) -> Float[Array, "p d"]:
        """The ViT, told by the maps between its groups of layers."""
        layers = self.config.low.num_layers_run
        group = layers // (len(self.adapters) + 1)
        for number, adapter in enumerate(self.adapters):
            x = self.low.run(x, plan, number * group, (number + 1) * group)
            for high, s in zip(maps, shared, strict=True):
                told = adapter(
                    s.cells.spread(x),
                    high,
                    target_mask=s.grid_mask,
                    source_mask=s.high_mask,
                    align=_alignment(high.shape, s.cells.shape),
                )
                x = jnp.where(s.cells.has()[:, None], s.cells.gather(told), x)
        return self.low.run(x, plan, len(self.adapters) * group, layers)

    def _told_high(self, low: Float[Array, "p d"], s: Shared) -> Float[Array, "n y x z"]:
        """The ConvNeXt on canvases of one shape, told by the ViT after each of its last stages."""
        source = s.cells.spread(low)
        x = self.high.start(s.canvases.pixels)
        first = len(self.high.stages) - len(self.adapters)
        for number, stage in enumerate(self.high.stages):
            mask = self.high.mask(s.canvases.pixels, s.canvases.sizes, number)
            x = stage(x, mask)
            if number >= first:
                x = self.adapters[number - first](
                    x,
                    source,
                    target_mask=mask,
                    source_mask=s.grid_mask,
                    align=_alignment(source.shape, x.shape),
                )
        return x

    def _shared(self, canvases: Canvases, pack: Pack) -> Shared:
        config = self.config
        height, width = canvases.pixels.shape[1:3]
        side, each = config.input_image_size, config.patches_per_cell
        if not config.is_aligned and (height, width) != (side, side):
            raise ValueError(
                f"DualTower: a canvas of {width} x {height} px, but maps that have to be resized "
                f"take {side} x {side} px only. Name that canvas in `Rung.canvases`."
            )
        rows, columns = (n // config.high.stride for n in (height, width))
        cells = nn.Cells.of(
            pack.patch_positions,
            pack.patch_segment_ids,
            canvases.views,
            max_views=pack.grid_thw.shape[0],
            height=rows * each,
            width=columns * each,
        )
        mask = nn.canvas_mask(canvases.sizes, rows, columns, stride=config.high.stride)
        return Shared(canvases, cells, cells.mask(), mask)


def _aligned(x: nn.Map, shape: tuple[int, int, int]) -> Float[Array, "n b a z"]:
    align = _alignment(x.shape, shape)
    return x if align is None else align(x)


def _alignment(source: tuple[int, ...], target: tuple[int, ...]) -> nn.Resize | None:
    """Brings a map to the cells of another: linear with corners aligned, or means of whole blocks.

    None where the cells are the same. Other cells than these only occur where every view fills its
    canvas (`DualConfig.is_aligned`), since a map with margins would be resized with them.
    """
    if source[1:3] == target[1:3]:
        return None
    rows, columns = (_along(i, o) for i, o in zip(source[1:3], target[1:3], strict=True))
    return nn.Resize(rows, columns)


def _along(num_in: int, num_out: int) -> np.ndarray:
    if num_out >= num_in:
        return resize_matrix(num_out, num_in, "linear_corners")
    block = num_in // num_out
    return np.repeat(np.eye(num_out, dtype=np.float32), block, axis=1) / np.float32(block)

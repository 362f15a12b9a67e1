"""LLaVA-NeXT over packs."""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from mres_jax import nn
from mres_jax.data.types import NEWLINE, Pack
from mres_jax.models.llava.model import Llava
from mres_jax.models.llava_next.config import LlavaNextConfig
from mres_jax.models.tower import Visual


class LlavaNext(Llava):
    """Tiles are views like any other; which of their tokens stand where comes from the host."""

    config: LlavaNextConfig

    def __init__(
        self,
        config: LlavaNextConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        remat: nn.Remat = "none",
        rngs: nnx.Rngs,
    ):
        super().__init__(config, dtype=dtype, remat=remat, rngs=rngs)
        size = config.text_config.hidden_size
        draw = nnx.initializers.normal(size**-0.5)
        self.image_newline = nnx.Param(draw(rngs.params(), (size,)))

    def _inputs(self, pack: Pack, visual: Visual | None):
        """Of the decoder; each row of tiles ends with a learned vector."""
        x, positions, plan, extra = super()._inputs(pack, visual)
        ends = (pack.visual_index == NEWLINE)[:, None]
        x = jnp.where(ends, self.image_newline[...].astype(x.dtype)[None], x)
        return x, positions, plan, extra

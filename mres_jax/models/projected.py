"""Models that bring visual tokens to the decoder's width by a projector of two layers."""

from typing import Any

from flax import nnx
from jax.typing import DTypeLike

from mres_jax import nn
from mres_jax.models.qwen2.model import Decoder
from mres_jax.models.tower import Tower, Visual
from mres_jax.models.vlm import PackedVLM


class ProjectedVLM(PackedVLM):
    """A tower, a two-layer projector and a decoder; subclasses build the tower."""

    def __init__(
        self,
        config: Any,
        vision: Tower,
        *,
        in_size: int,
        dtype: DTypeLike,
        remat: nn.Remat,
        rngs: nnx.Rngs,
    ):
        """Builds projector and decoder behind a tower whose visual tokens are `in_size` wide."""
        self.config, self.vision = config, vision
        self.projector = nn.Projector(
            in_size=in_size, out_size=config.text_config.hidden_size, dtype=dtype, rngs=rngs
        )
        self.text = Decoder(config.text_config, dtype=dtype, remat=remat, rngs=rngs)

    def project(self, visual: Visual) -> Visual:
        """Visual tokens at the decoder's width."""
        return Visual(self.projector(visual.tokens))

"""Models that bring visual tokens to the decoder's width by a projector."""

from typing import Any

from flax import nnx
from jax.typing import DTypeLike

from mres_jax import nn
from mres_jax.models.qwen2.model import Decoder
from mres_jax.models.tower import Tower, Visual
from mres_jax.models.vlm import PackedVLM


class ProjectedVLM(PackedVLM):
    """A tower, a projector and a decoder; subclasses build the tower, some another projector."""

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
        out_size = config.text_config.hidden_size
        self.projector = self.make_projector(in_size, out_size, dtype=dtype, rngs=rngs)
        self.text = Decoder(config.text_config, dtype=dtype, remat=remat, rngs=rngs)

    @staticmethod
    def make_projector(
        in_size: int, out_size: int, *, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> nnx.Module:
        """What takes visual tokens from one width to the other."""
        return nn.Projector(in_size=in_size, out_size=out_size, dtype=dtype, rngs=rngs)

    def project(self, visual: Visual) -> Visual:
        """Visual tokens at the decoder's width."""
        return Visual(self.projector(visual.tokens))

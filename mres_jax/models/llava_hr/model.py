"""LLaVA-HR over packs."""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from mres_jax import nn
from mres_jax.models.llava_hr.config import LlavaHRConfig
from mres_jax.models.llava_hr.tower import DualTower
from mres_jax.models.qwen2.model import Decoder
from mres_jax.models.tower import Visual
from mres_jax.models.vlm import PackedVLM


class LlavaHR(PackedVLM):
    """The dual tower, a two-layer projector, a Llama decoder.

    Reference:
      Luo et al., 2024, "Feast Your Eyes", arXiv:2403.03003.
    """

    def __init__(
        self,
        config: LlavaHRConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        remat: nn.Remat = "none",
        rngs: nnx.Rngs,
    ):
        self.config = config
        self.vision = DualTower(config.vision_config, dtype=dtype, remat=remat, rngs=rngs)
        self.projector = nn.Projector(
            in_size=config.vision_config.low.hidden_size,
            out_size=config.text_config.hidden_size,
            dtype=dtype,
            rngs=rngs,
        )
        self.text = Decoder(config.text_config, dtype=dtype, remat=remat, rngs=rngs)

    def project(self, visual: Visual) -> Visual:
        """Visual tokens at the decoder's width."""
        return Visual(self.projector(visual.tokens))

"""LLaVA-1.5 over packs."""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from mres_jax import nn
from mres_jax.models.clip.model import ClipTower
from mres_jax.models.llava.config import LlavaConfig
from mres_jax.models.qwen2.model import Decoder
from mres_jax.models.tower import Visual
from mres_jax.models.vlm import PackedVLM


class Llava(PackedVLM):
    """Every patch is a visual token, behind a two-layer projector.

    Reference:
      Liu et al., 2023, "Improved Baselines with Visual Instruction Tuning", arXiv:2310.03744.
    """

    def __init__(
        self,
        config: LlavaConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        remat: nn.Remat = "none",
        rngs: nnx.Rngs,
    ):
        self.config = config
        self.vision = ClipTower(config.vision_config, dtype=dtype, remat=remat, rngs=rngs)
        self.projector = nn.Projector(
            in_size=config.vision_config.hidden_size,
            out_size=config.text_config.hidden_size,
            dtype=dtype,
            rngs=rngs,
        )
        self.text = Decoder(config.text_config, dtype=dtype, remat=remat, rngs=rngs)

    def project(self, visual: Visual) -> Visual:
        """Visual tokens at the decoder's width."""
        return Visual(self.projector(visual.tokens))

"""NativeRes-LLaVA over packs."""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from mres_jax import nn
from mres_jax.models.nativeres_llava.config import NativeResLlavaConfig
from mres_jax.models.qwen2.model import Decoder
from mres_jax.models.qwen2_vl.model import VisionTower
from mres_jax.models.tower import Visual
from mres_jax.models.vlm import PackedVLM


class NativeResLlava(PackedVLM):
    """The tower with its own merger, then a two-layer projector, then the decoder.

    Reference:
      Niu et al., 2025, "Native Visual Understanding", arXiv:2506.12776, section 4.
    """

    def __init__(
        self,
        config: NativeResLlavaConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        remat: nn.Remat = "none",
        rngs: nnx.Rngs,
    ):
        self.config = config
        self.vision = VisionTower(config.vision_config, dtype=dtype, remat=remat, rngs=rngs)
        self.projector = nn.Projector(
            in_size=config.mm_hidden_size,
            out_size=config.text_config.hidden_size,
            dtype=dtype,
            rngs=rngs,
        )
        self.text = Decoder(config.text_config, dtype=dtype, remat=remat, rngs=rngs)

    def project(self, visual: Visual) -> Visual:
        """Visual tokens at the decoder's width."""
        return Visual(self.projector(visual.tokens))

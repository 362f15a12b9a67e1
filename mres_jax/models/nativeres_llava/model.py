"""NativeRes-LLaVA over packs."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from mres_jax import nn
from mres_jax.models.nativeres_llava.config import NativeResLlavaConfig
from mres_jax.models.projected import ProjectedVLM
from mres_jax.models.qwen2_vl.model import VisionTower
from mres_jax.models.siglip.config import NaflexConfig
from mres_jax.models.siglip.model import SiglipTower


class NativeResLlava(ProjectedVLM):
    """The tower with its own merger if it has one, then a two-layer projector, then the decoder.

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
        tower: Any = SiglipTower if isinstance(config.vision_config, NaflexConfig) else VisionTower
        vision = tower(config.vision_config, dtype=dtype, remat=remat, rngs=rngs)
        width = config.mm_hidden_size
        super().__init__(config, vision, in_size=width, dtype=dtype, remat=remat, rngs=rngs)

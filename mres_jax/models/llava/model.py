"""LLaVA-1.5 over packs."""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from mres_jax import nn
from mres_jax.models.clip.model import ClipTower
from mres_jax.models.llava.config import LlavaConfig
from mres_jax.models.projected import ProjectedVLM


class Llava(ProjectedVLM):
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
        vision = ClipTower(config.vision_config, dtype=dtype, remat=remat, rngs=rngs)
        width = config.vision_config.hidden_size
        super().__init__(config, vision, in_size=width, dtype=dtype, remat=remat, rngs=rngs)

"""LLaVA-HR over packs."""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from mres_jax import nn
from mres_jax.models.llava_hr.config import LlavaHRConfig
from mres_jax.models.llava_hr.tower import DualTower
from mres_jax.models.projected import ProjectedVLM


class LlavaHR(ProjectedVLM):
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
        vision = DualTower(config.vision_config, dtype=dtype, remat=remat, rngs=rngs)
        width = config.vision_config.low.hidden_size
        super().__init__(config, vision, in_size=width, dtype=dtype, remat=remat, rngs=rngs)

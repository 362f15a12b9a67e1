"""SmolVLM2 over packs."""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from mres_jax import nn
from mres_jax.models.projected import ProjectedVLM
from mres_jax.models.siglip.model import SiglipTower
from mres_jax.models.smolvlm.config import SmolVLMConfig


class SmolVLM(ProjectedVLM):
    """Each block of patches is a visual token, behind one linear layer.

    Reference:
      Marafioti et al., 2025, "SmolVLM", arXiv:2504.05299, section 2.
    """

    def __init__(
        self,
        config: SmolVLMConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        remat: nn.Remat = "none",
        rngs: nnx.Rngs,
    ):
        vision = SiglipTower(config.vision_config, dtype=dtype, remat=remat, rngs=rngs)
        width = config.vision_config.out_width
        super().__init__(config, vision, in_size=width, dtype=dtype, remat=remat, rngs=rngs)

    @staticmethod
    def make_projector(
        in_size: int, out_size: int, *, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> nnx.Module:
        """The connector's layer, without a bias."""
        return nnx.Linear(in_size, out_size, use_bias=False, dtype=dtype, rngs=rngs)

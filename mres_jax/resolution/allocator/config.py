"""Sizes and forms of an allocator network, and the published ones by name."""

import dataclasses

from mres_jax.errors import ConfigError, suggest
from mres_jax.resolution.allocator.beta import BetaLink

TOKENS_PER_FRAME = 64  # of coarse features, 8 x 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class AllocatorConfig:
    """An allocator network.

    Attributes:
      frame_size: width of the frame features.
      question_size: width of the question features.
      hidden_size: width of the trunk.
      num_layers: of the trunk.
      num_heads: of spatial and cross attention.
      num_temporal_heads: of temporal attention.
      head_dim: head width.
      ffn_factor: width of the feed-forward blocks over `hidden_size`.
      spatial_attention: whether the tokens of a frame see each other in every layer.
      gated: whether cross attention enters through `tanh(gate)`, with a gate that begins at 0.
      pool_gate_norm: whether tokens are normalised before the gate of the pooling.
      link: from the head's two scores to alpha and beta.
      init: `healthy` begins with alpha = beta = 2 for every frame; `released` with the released
        code's bias of -20, nearly uniform and with next to no gradient into the last layer.
      min_scale: per side, of the least action.
      max_scale: per side, of the largest.
      unit: what a scale is for: each `frame`, or each `pair` of frames that the backbone merges.
    """

    frame_size: int
    question_size: int
    hidden_size: int = 1024
    num_layers: int = 2
    num_heads: int = 16
    num_temporal_heads: int = 8
    head_dim: int = 64
    ffn_factor: int = 4
    spatial_attention: bool = True
    gated: bool = False
    pool_gate_norm: bool = True
    link: BetaLink = dataclasses.field(default_factory=BetaLink)
    init: str = "healthy"
    min_scale: float = 0.2
    max_scale: float = 1.8
    unit: str = "pair"

    def __post_init__(self):
        sizes = ("frame_size", "question_size", "hidden_size", "num_layers", "num_heads")
        sizes += ("num_temporal_heads", "head_dim", "ffn_factor")
        for name in sizes:
            if getattr(self, name) < 1:
                raise ConfigError(f"allocator: {name}={getattr(self, name)} must be at least 1.")
        if self.head_dim % 4:
            raise ConfigError(f"allocator: head_dim={self.head_dim} is not a multiple of 4.")
        if not 0 < self.min_scale < self.max_scale:
            raise ConfigError(
                f"allocator: min_scale={self.min_scale} must be above 0 and below max_scale="
                f"{self.max_scale}."
            )
        choices = {"init": ("healthy", "released"), "unit": ("frame", "pair")}
        for name, have in choices.items():
            if getattr(self, name) not in have:
                raise ConfigError(
                    f"allocator: {name}={getattr(self, name)!r}; have {', '.join(have)}."
                )


def released_v2(*, frame_size: int = 576, question_size: int = 576) -> AllocatorConfig:
    """The default of the released code: 43.7 M parameters on features of SmolVLM2-256M.

    Reference:
      `smol_v2` of Xnhyacinth/ResAdapt at commit 3816930. Its range of scales is 0.2 to 2.0.
    """
    return AllocatorConfig(
        frame_size=frame_size, question_size=question_size, max_scale=2.0, init="released"
    )


def paper(*, frame_size: int = 576, question_size: int = 576) -> AllocatorConfig:
    """What the paper describes: four layers of temporal and gated cross attention, 1024 wide.

    Reference:
      Liao et al., 2026, arXiv:2603.28610, section on the allocator and its appendix on complexity.
      The paper does not give heads, head or pooling; those are the released code's.
    """
    return AllocatorConfig(
        frame_size=frame_size,
        question_size=question_size,
        num_layers=4,
        spatial_attention=False,
        gated=True,
    )


def tiny(*, frame_size: int = 128, question_size: int = 128) -> AllocatorConfig:
    """0.6 M parameters, for CPUs and for features of mres-tiny."""
    return AllocatorConfig(
        frame_size=frame_size,
        question_size=question_size,
        hidden_size=128,
        num_layers=2,
        num_heads=4,
        num_temporal_heads=2,
        head_dim=32,
    )


PRESETS = {"released_v2": released_v2, "paper": paper, "tiny": tiny}


def preset(name: str, **sizes: int) -> AllocatorConfig:
    """Returns a preset by name; `sizes` are the widths of the features.

    Raises:
      ConfigError: there is none of that name.
    """
    if name not in PRESETS:
        raise ConfigError(
            f"allocator: no preset {name!r}{suggest(name, PRESETS)}; have {', '.join(PRESETS)}."
        )
    return PRESETS[name](**sizes)

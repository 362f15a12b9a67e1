"""Which parameters a run trains, and how."""

import dataclasses
import math
from collections.abc import Mapping

from mres_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoRA:
    """Low-rank adapters on linear layers, whose own kernels stay as they are.

    Reference:
      Hu et al., 2021, "LoRA", arXiv:2106.09685, section 4.1.

    Attributes:
      targets: dotted names of linear layers, or of what holds some (`text.layers`), or globs
        (`*.attn.q`; a star crosses dots). A stack of layers is one name.
      rank: columns of the first factor.
      alpha: the product of the factors counts `alpha / rank` times.
    """

    targets: tuple[str, ...] = ("text.layers",)
    rank: int = 16
    alpha: float = 32.0

    def __post_init__(self):
        if not self.targets or not all(self.targets):
            raise ConfigError(
                f"LoRA: targets={list(self.targets)} names no layer; give patterns such as "
                "text.layers or *.attn.q, or leave peft out."
            )
        if self.rank < 1:
            raise ConfigError(f"LoRA: rank={self.rank} must be at least 1.")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ConfigError(f"LoRA: alpha={self.alpha} must be finite and above 0.")

    @property
    def scale(self) -> float:
        """Factor of the product."""
        return self.alpha / self.rank


def check_train(train: Mapping[str, float] | None, peft: LoRA | None) -> None:
    """Refuses multipliers that are none, and a choice of nothing.

    Raises:
      ConfigError: which entry, and what to do.
    """
    for prefix, value in (train or {}).items():
        if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
            raise ConfigError(
                f"Run: train[{prefix!r}]={value} must be finite and above 0. What no entry names "
                "is frozen: leave it out to freeze it."
            )
    if train is not None and not train and peft is None:
        raise ConfigError(
            "Run: train={} trains nothing; name a part (such as projector), or leave it out to "
            "train the whole model."
        )

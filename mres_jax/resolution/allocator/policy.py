"""`allocator,weights=DIR`: a small network looks first and says how large each picture should be.

The policy itself holds names and numbers alone; who has the pixels runs the network and hands the
scales to `views`.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from mres_jax.data.spec import ProcessorSpec
from mres_jax.errors import PolicyError
from mres_jax.geometry import Extent, View
from mres_jax.resolution.allocator.budget import (
    Allocation,
    allocate,
    allocate_within,
    retention_tokens,
)
from mres_jax.resolution.allocator.operators import select_top
from mres_jax.resolution.policy import Policy
from mres_jax.resolution.uniform import native_size


@dataclasses.dataclass(frozen=True, kw_only=True)
class AllocatorPolicy(Policy):
    """Sizes from a trained allocator.

    `allocator,weights=DIR` takes its scales as they are, `retention=0.25` brings them in proportion
    to a quarter of the native visual tokens, `top=4` keeps the four largest and leaves the others
    out. In a clip, frames that the model sees together share the mean of their scales, and `top`
    counts these groups.

    Reference:
      Liao et al., 2026, "ResAdapt", arXiv:2603.28610. `retention` and its rule are ours.
    """

    name: ClassVar[str] = "allocator"
    takes_clips: ClassVar[bool] = True
    example: ClassVar[str] = "allocator,weights=DIR,retention=0.25"
    weights: str  # directory of the allocator
    retention: float | None = None  # share of the native visual tokens
    top: int | None = None  # pictures kept

    def __post_init__(self):
        if self.retention is not None and not (
            math.isfinite(self.retention) and self.retention > 0
        ):
            raise PolicyError(
                f"policy allocator: retention={self.retention} must be above 0, for example 0.25."
            )
        if self.top is not None and self.top < 1:
            raise PolicyError(f"policy allocator: top={self.top} must keep at least 1 picture.")

    def files(self) -> tuple[str, ...]:
        """The directory of the allocator."""
        return (self.weights,)

    def __call__(self, sizes: Sequence[Extent], question: str, spec: ProcessorSpec) -> list[View]:
        """Refuses: sizes alone do not tell, unless there is no picture."""
        if not sizes:
            return []
        raise PolicyError(
            f"policy {self}: it looks at the pixels first, so it cannot plan from sizes. Use it to "
            "ask and to evaluate; train with another policy, for example native."
        )

    def most(self, sizes: Sequence[Extent], spec: ProcessorSpec, *, max_scale: float) -> Allocation:
        """Returns the largest allocation there can be, whatever is seen, up to a step of rounding.

        Args:
          sizes: as of `allocation`.
          spec: of the model.
          max_scale: of the allocator.

        Raises:
          PolicyError: as `allocation`.
        """
        by_area = sorted(range(len(sizes)), key=lambda i: -native_size(sizes[i], spec).area)
        kept = set(by_area[: self.top])
        scales = [max_scale if i in kept else 0.0 for i in range(len(sizes))]
        return self.allocation(scales, sizes, spec, max_scale=max_scale)

    def allocation(
        self,
        scales: Sequence[float],
        sizes: Sequence[Extent],
        spec: ProcessorSpec,
        *,
        max_scale: float,
    ) -> Allocation:
        """Returns what the scales of the network come to.

        Args:
          scales: per side, one for each unit, see `units_of`.
          sizes: of the upright pictures, pixels; for each group of frames of a clip the clip's.
          spec: of the model.
          max_scale: of the allocator; no retention makes a picture larger.

        Raises:
          PolicyError: a retention that the pictures cannot be brought to.
        """
        self.check(spec)
        kept = np.asarray(scales, np.float64)
        if self.top is not None:
            kept = select_top(kept, self.top)
        if self.retention is None:
            return allocate(kept.tolist(), sizes, spec)
        tokens = retention_tokens(self.retention, sizes, spec)
        return allocate_within(kept.tolist(), sizes, spec, tokens=tokens, max_scale=max_scale)

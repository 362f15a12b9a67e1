"""Parameters that are still on disk, so that a model larger than memory can be converted."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unread:
    """A parameter in its file, where an array would stand.

    Attributes:
      shape: extents.
      dtype: of what `read` returns.
      read: returns it, anew each time; nothing is kept.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray] = dataclasses.field(repr=False)

    @property
    def nbytes(self) -> int:
        """Bytes in memory, once read."""
        return math.prod(self.shape) * self.dtype.itemsize

"""What planning and packing need of a data set."""

from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Int
from numpy import ndarray

from mres_jax.data.types import Example


@runtime_checkable
class Examples(Protocol):
    """A data set as a run sees it: example `number` of an epoch, the same for every reader.

    It goes to worker processes, so it can be pickled, and is small then.
    """

    def sizes(self, epoch: int) -> Int[ndarray, "examples 3"]:
        """`ExampleSize` of all examples of an epoch, found without reading a picture."""
        ...

    def has_clip(self, epoch: int) -> Bool[ndarray, " examples"]:
        """Which of them have a clip, found likewise: their packs have longer patch rows."""
        ...

    def example(self, epoch: int, number: int) -> Example:
        """One example, of exactly that size.

        Raises:
          BadRowError: its data turn out to be unreadable.
        """
        ...

    def name(self, epoch: int, number: int) -> str:
        """What a user calls it."""
        ...

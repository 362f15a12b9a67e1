"""Rows on disk as examples: which of them an epoch has, and how each is looked at."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int

from mres_jax.config import Rows
from mres_jax.data.rows import RowSet
from mres_jax.data.types import Example
from mres_jax.errors import BadRowError, ConfigError, RunError
from mres_jax.resolution.policy import Policy

Kept = Literal["train", "held_out", "all"]


def held_out_rows(num_rows: int, count: int) -> Int[np.ndarray, " held"]:
    """Places of the rows that no training sees: a function of these two numbers alone."""
    rng = np.random.Generator(np.random.PCG64([num_rows]))
    return np.sort(rng.permutation(num_rows)[:count])


class RowExamples:
    """Rows of a file under a mixture of policies; see `examples.Examples`.

    Args:
      data: how often each row is used, and what happens to one that cannot be read.
      rows: opened.
      policies: with their weights; each use of a row draws one. Those of weight 0 do not count.
      seed: of these draws.
      label_mask: see `tokenize_messages`.
      kept: `train` leaves out the rows that `data.held_out` keeps back, `held_out` has these alone.
      log: receives a line where a policy does not take a row; such rows are left out.
    """

    def __init__(
        self,
        data: Rows,
        rows: RowSet,
        *,
        policies: Mapping[Policy, float],
        seed: int | str,
        label_mask: str = "answer",
        kept: Kept = "train",
        log: Callable[[str], None] = lambda line: None,
    ):
        self.data, self.rows, self.seed, self.label_mask = data, rows, seed, label_mask
        drawn = {policy: weight for policy, weight in policies.items() if weight}
        self.policies = tuple(drawn)
        weights = np.array(list(drawn.values()), np.float64)
        self._shares = weights / weights.sum()
        measured = [rows.measure(policy) for policy in self.policies]
        for policy, one in zip(self.policies, measured, strict=True):
            if one.refused is not None:
                log(f"{rows.source.name}: left out under {policy}: {one.refused}")
        taken = functools.reduce(np.intersect1d, [one.rows for one in measured])
        self.taken = taken = self._kept(taken, kept)
        self._sizes: Any = np.stack([one.sizes[np.isin(one.rows, taken)] for one in measured])
        self._clips: Any = rows.has_clip[taken]

    def _kept(self, taken: np.ndarray, kept: Kept) -> np.ndarray:
        count, have = self.data.held_out, len(self.rows)
        if kept == "all" or not count:
            return taken[:0] if kept == "held_out" else taken
        if count >= have:
            raise ConfigError(
                f"run: held_out={count} of {self.rows.source.name}, which has {have} usable rows: "
                "nothing is left to train on. Hold out fewer."
            )
        held = held_out_rows(have, count)
        return np.intersect1d(taken, held) if kept == "held_out" else np.setdiff1d(taken, held)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_sizes": None, "_clips": None}  # for planning alone

    def sizes(self, epoch: int) -> Int[np.ndarray, "examples 3"]:
        """Sizes of all examples of an epoch, from the index."""
        places, policies = self._drawn(epoch)
        return self._sizes[policies, places]

    def has_clip(self, epoch: int) -> Bool[np.ndarray, " examples"]:
        """Which of them have a clip, from the index."""
        places, _ = self._drawn(epoch)
        return self._clips[places]

    def name(self, epoch: int, number: int) -> str:
        """For messages."""
        places, _ = self._drawn(epoch)
        row = self.rows.index.usable[self.taken[places[number]]]
        return f"row {row} of {self.rows.source.name}"

    def example(self, epoch: int, number: int) -> Example:
        """One row.

        Raises:
          BadRowError: a picture cannot be decoded, or it changed since the index.
          RunError: the same, with `on_bad="raise"`.
        """
        places, policies = self._drawn(epoch)
        policy = self.policies[policies[number]]
        try:
            return self.rows.example(
                int(self.taken[places[number]]), policy, label_mask=self.label_mask
            )
        except BadRowError as error:
            if self.data.on_bad == "raise":
                raise RunError(f"data: {self.rows.source.name}: {error}") from None
            raise

    def _drawn(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Place among the rows taken, and policy, of every example of an epoch."""
        return _draw(str(self.seed), epoch, len(self.taken), self.data.weight, tuple(self._shares))


@functools.lru_cache(maxsize=32)  # of every data set of a mixture
def _draw(
    seed: str, epoch: int, num_rows: int, weight: float, shares: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    entropy = [epoch, *seed.encode()]
    rng = np.random.Generator(np.random.PCG64(entropy))
    whole, part = divmod(weight, 1.0)
    count = max(0 if whole else 1, round(part * num_rows))  # no data set is left out
    extra = rng.permutation(num_rows)[:count]
    places = np.concatenate([np.tile(np.arange(num_rows), int(whole)), np.sort(extra)])
    return places, rng.choice(len(shares), len(places), p=shares)

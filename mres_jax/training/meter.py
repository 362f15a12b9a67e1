"""Means over a few steps, read from the device only then, so that steps stay in flight."""

import json
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from mres_jax.data.types import Pack
from mres_jax.files import write_together


class Meter:
    """Sums metrics of steps and gives a row of means every few of them.

    Its sums go into the checkpoint: a run that was cut short between two rows then writes the same
    row as one that was not.

    Args:
      every: steps per row.
      start: what `sums_so_far` gave, where a run goes on.
    """

    def __init__(self, every: int, start: Mapping[str, float] | None = None):
        self.every = every
        self._reset()
        if start:
            sums = dict(start)
            self.count = int(sums.pop("count"))
            self.sums = {name: jnp.float32(value) for name, value in sums.items()}

    def _reset(self) -> None:
        self.sums: dict[str, Any] = {}
        self.count = self.timed = self.patches = self.tokens = 0
        self.start = self.ended = time.perf_counter()
        self.waited = 0.0

    def wait_ended(self) -> None:
        """A pack is there: what passed since the last step was waiting for data."""
        self.waited += time.perf_counter() - self.ended

    def saw(self, pack: Pack) -> None:
        """Counts what a pack holds."""
        self.patches += int((pack.patch_segment_ids > 0).sum())
        self.tokens += int((pack.segment_ids > 0).sum())

    def add(self, step: int, metrics: Mapping[str, Any]) -> dict[str, Any] | None:
        """Returns a row of means when it is time: over the steps that were not `skipped`."""
        self.sums = {name: self.sums.get(name, 0.0) + x for name, x in metrics.items()}
        self.count += 1
        self.timed += 1
        self.ended = time.perf_counter()
        if step % self.every:
            return None
        sums = {name: float(value) for name, value in self.sums.items()}
        done = self.count - (skipped := int(sums.pop("skipped", 0)))
        means = {name: value / done for name, value in sums.items()} if done else {}
        seconds = time.perf_counter() - self.start
        row = {"step": step, **means, "skipped": skipped, "seconds_per_step": seconds / self.timed}
        row |= {"patches_per_s": self.patches / seconds, "tokens_per_s": self.tokens / seconds}
        row |= {"data_wait_share": self.waited / seconds, "time": time.time()}
        self._reset()
        return row

    def sums_so_far(self) -> dict[str, float]:
        """JSON of what has been added since the last row; empty right after one."""
        if not self.count:
            return {}
        return {"count": self.count} | {name: float(value) for name, value in self.sums.items()}


def drop_rows_after(file: pathlib.Path, step: int) -> None:
    """Takes rows of steps that a restored run will do again out of a JSONL file."""
    if not file.is_file():
        return
    lines = file.read_text().splitlines()
    kept = [line for line in lines if _step_of(line) <= step]
    if len(kept) < len(lines):
        text = "".join(line + "\n" for line in kept)
        write_together(file.parent, {file.name: text.encode()})


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except ValueError:  # a line that was cut short when the run was killed
        return float("inf")

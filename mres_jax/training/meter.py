"""Means over a few steps, read from the device only then, so that steps stay in flight."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp

from mres_jax.data.types import Pack
from mres_jax.training import hosts

SEEN = ("patches", "tokens", "patch_room", "token_room")  # of the packs
WAITED = ("slowest_pairs", "mean_pairs")  # attention pairs of the slowest rank, and of a mean one


class Meter:
    """Sums metrics of steps and gives a row of means every few of them.

    Its sums go into the checkpoint: a run that was cut short between two rows then writes the same
    means as one that was not. Rates are of the time since the row before, or since the start,
    without what was spent in `pause`. Of several processes each counts packs of its own; rows and
    `sums_so_far` are of all, so all ask for them at the same steps.

    Args:
      every: steps per row.
      start: what `sums_so_far` gave, where a run goes on.
      count_flops: of training on a pack; None leaves them out.
      peak_flops: most FLOP/s of all devices of the run together, if known.
    """

    def __init__(
        self,
        every: int,
        start: Mapping[str, Any] | None = None,
        *,
        count_flops: Callable[[Pack], float] | None = None,
        peak_flops: float | None = None,
    ):
        self.every, self.count_flops, self.peak_flops = every, count_flops, peak_flops
        self._reset()
        if start:
            sums = dict(start)
            self.count = int(sums.pop("count"))
            seen = sums.pop("seen", {})
            self.seen |= seen if hosts.is_main() else {}
            self.sums = {name: jnp.float32(value) for name, value in sums.items()}

    def _reset(self) -> None:
        self.sums: dict[str, Any] = {}
        self.seen: dict[str, float] = dict.fromkeys((*SEEN, *WAITED), 0)
        self.count = self.timed = 0
        self.patches = self.tokens = self.flops = self.waited = 0.0
        self.paused: dict[str, float] = {}
        self.start = self.ended = time.perf_counter()

    def wait_ended(self) -> None:
        """A pack is there: what passed since the last step was waiting for data."""
        self.waited += time.perf_counter() - self.ended

    @contextlib.contextmanager
    def pause(self, name: str) -> Iterator[None]:
        """Work that is no training step: rows tell its seconds as `<name>_seconds`."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.ended = time.perf_counter()
            self.paused[name] = self.paused.get(name, 0.0) + self.ended - begun

    def saw(self, pack: Pack) -> None:
        """Counts what a pack holds."""
        patches, tokens = int((pack.patch_segment_ids > 0).sum()), int((pack.segment_ids > 0).sum())
        room = len(pack.patch_segment_ids), len(pack.segment_ids)
        for name, value in zip(SEEN, (patches, tokens, *room), strict=True):
            self.seen[name] += value
        self.patches += patches
        self.tokens += tokens
        if self.count_flops is not None:
            self.flops += self.count_flops(pack)

    def shared(self, slowest: float, mean: float) -> None:
        """Counts how the attention of a step was shared out, see `meshes.slowest_and_mean`."""
        for name, value in zip(WAITED, (slowest, mean), strict=True):
            self.seen[name] += value

    def add(self, step: int, metrics: Mapping[str, Any]) -> dict[str, Any] | None:
        """Returns a row of means when it is time; `skipped` is a sum in it, and no step counts."""
        self.sums = {name: self.sums.get(name, 0.0) + x for name, x in metrics.items()}
        self.count += 1
        self.timed += 1
        self.ended = time.perf_counter()
        if step % self.every:
            return None
        self._gather()
        row = {"step": step} | self._means() | self._fullness() | self._rates()
        row["time"] = time.time()
        self._reset()
        return row

    def _gather(self) -> None:
        """Counts of all processes in place of those of this one."""
        self.seen = hosts.totals(self.seen)
        rated = {"patches": self.patches, "tokens": self.tokens, "flops": self.flops}
        self.patches, self.tokens, self.flops = hosts.totals(rated).values()

    def _means(self) -> dict[str, float]:
        sums = {name: float(value) for name, value in self.sums.items()}  # waits for the device
        skipped = {"skipped": int(sums.pop("skipped"))} if "skipped" in sums else {}
        done = self.count - skipped.get("skipped", 0)
        return {name: value / done for name, value in sums.items() if done} | skipped

    def _fullness(self) -> dict[str, float]:
        pairs = {"patch_efficiency": SEEN[::2], "token_efficiency": SEEN[1::2]}
        shares = {
            name: self.seen[held] / self.seen[room]
            for name, (held, room) in pairs.items()
            if self.seen[room]
        }
        slowest, mean = (self.seen[name] for name in WAITED)
        return shares | ({"attention_imbalance": slowest / mean - 1} if mean else {})

    def _rates(self) -> dict[str, float]:
        seconds = time.perf_counter() - self.start - sum(self.paused.values())
        rates = {
            "seconds_per_step": seconds / self.timed,
            "patches_per_s": self.patches / seconds,
            "tokens_per_s": self.tokens / seconds,
            "data_wait_share": self.waited / seconds,
        }
        if self.flops:
            rates["flops_per_s"] = self.flops / seconds
        if self.flops and self.peak_flops:
            rates["mfu"] = rates["flops_per_s"] / self.peak_flops
        return rates | {f"{name}_seconds": value for name, value in self.paused.items()}

    def sums_so_far(self) -> dict[str, Any]:
        """JSON of what has been added since the last row; empty right after one."""
        if not self.count:
            return {}
        sums = {name: float(value) for name, value in self.sums.items()}
        return {"count": self.count, "seen": hosts.totals(self.seen)} | sums

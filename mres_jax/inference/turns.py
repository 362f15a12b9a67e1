"""Packs of prompts that are answered together, and the rows of caches that their answers grow in.

Axes: s examples of a rung, m rows of a cache, n new tokens.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

from mres_jax import nn
from mres_jax.data.positions import next_position
from mres_jax.data.types import TEXT, Pack, Rung
from mres_jax.errors import RunError
from mres_jax.inference import sampling as draws
from mres_jax.inference.programs import Out, Rows


@runtime_checkable
class Watch(Protocol):
    """Looks at answers while they grow, every `CHUNK` tokens; it must be quick."""

    def __call__(self, prompt: int, sample: int, token_ids: Sequence[int], /) -> bool:
        """Takes all tokens so far of an answer that goes on or has just ended.

        Args:
          prompt: index in the pack.
          sample: number of the answer to this prompt.
          token_ids: so far.

        Returns:
          Whether the answer shall end here.
        """
        ...


class Completion(NamedTuple):
    """Generated tokens of one answer; see `mres_jax.protocols.Answer`."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    entropies: tuple[float, ...]
    finish_reason: str  # `stop` or `length`

    def cut(self, length: int) -> "Completion":
        """Returns its first tokens."""
        return Completion(
            self.token_ids[:length],
            self.logprobs[:length],
            self.entropies[:length],
            self.finish_reason,
        )


class Prompts(NamedTuple):
    """Where the prompts of a pack stand, `int32 [s]` each."""

    starts: np.ndarray
    lengths: np.ndarray
    next_positions: np.ndarray  # rotary position of the first new token

    @classmethod
    def of(cls, pack: Pack) -> "Prompts":
        """Reads them off the segment ids of a pack on the host."""
        segment_ids, positions = np.asarray(pack.segment_ids), np.asarray(pack.positions)
        is_text = np.asarray(pack.visual_index) == TEXT
        lengths = np.bincount(segment_ids, minlength=1)[1:]
        ends = np.cumsum(lengths)
        starts = ends - lengths
        after = [
            next_position(positions[:, start:end], ends_in_text=bool(is_text[end - 1]))
            for start, end in zip(starts, ends, strict=True)
        ]
        return cls(*(np.asarray(x, np.int32) for x in (starts, lengths, after)))

    def last(self, rung: Rung) -> np.ndarray:
        """`int32 [s]`, the last position of each prompt; 0 for examples that are not there."""
        last = np.zeros(rung.max_examples, np.int32)
        last[: len(self.starts)] = self.starts + self.lengths - 1
        return last


class Asked(NamedTuple):
    """A pack of prompts, and who looks at the answers while they grow; see `Generator.generate`."""

    pack: Pack
    request_ids: Sequence[str]
    watch: Watch | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """A pack on its way."""

    pack: Pack
    prompts: Prompts
    request_ids: list[str]
    watch: Watch | None
    n: int

    @property
    def rows(self) -> list[tuple[int, int]]:
        """Prompt and number of every answer."""
        return [(i, sample) for i in range(len(self.request_ids)) for sample in range(self.n)]

    def by_prompt(self, completions: list[Completion]) -> list[list[Completion]]:
        """Those of all rows, for each prompt."""
        return [completions[at : at + self.n] for at in range(0, len(completions), self.n)]


class Turn:
    """Some answers of a pack, in the rows of a cache."""

    def __init__(self, job: Job, rows: Sequence[tuple[int, int]]):
        self.job, self.rows = job, rows
        self.ended = np.zeros(len(rows), bool)

    def arrays(self, size: int) -> tuple[Any, ...]:
        """What a cache of `size` rows is made from; rows behind the last are not active."""
        prompts, pad = self.job.prompts, size - len(self.rows)
        index = np.array([i for i, _ in self.rows] + [0] * pad, np.int32)
        samples = np.array([sample for _, sample in self.rows] + [0] * pad, np.uint32)
        active = np.arange(size) < len(self.rows)
        words = np.array([draws.request_words(name) for name in self.job.request_ids], np.uint32)
        lengths = np.where(active, prompts.lengths[index], 0).astype(np.int32)
        fixed = Rows(prompts.next_positions[index], words[index], samples)
        return index, prompts.starts[index], lengths, active, fixed

    def is_going(self, size: int) -> np.ndarray:
        """`bool [size]`, whose answers nobody has ended; a stop token may have."""
        return np.append(~self.ended, np.zeros(size - len(self.rows), bool))

    def look(self, out: Out) -> None:
        """Shows the answers that were going on to whoever watches, who may end them."""
        for row, (prompt, sample) in enumerate(self.rows):
            if not self.ended[row]:
                seen = self._completion(out, row).token_ids
                unwanted = self.job.watch is not None and self.job.watch(prompt, sample, seen)
                self.ended[row] = unwanted or out.stopped[row]

    def completions(self, out: Out) -> list[Completion]:
        """What the rows have come to."""
        return [self._completion(out, row) for row in range(len(self.rows))]

    def _completion(self, out: Out, row: int) -> Completion:
        kept = slice(0, int(out.counts[row]))
        columns = (out.tokens, out.logprobs, out.entropies)
        bad = ~np.isfinite(out.logprobs[row, kept])
        if bad.any():
            name = self.job.request_ids[self.rows[row][0]]
            raise RunError(
                f"generate: request {name!r}: the scores of token {int(bad.argmax())} are not "
                "numbers. Check the weights, or compute in float32 or bfloat16."
            )
        return Completion(
            *(tuple(column[row, kept].tolist()) for column in columns),
            finish_reason="stop" if self.ended[row] or out.stopped[row] else "length",
        )


class Ranks:
    """Arrays of some packs as programs take them: of one as they are, of several on the ranks."""

    def __init__(self, count: int, ranks: int):
        self.count, self.ranks = count, ranks

    def join(self, trees: Sequence[Any]) -> Any:
        """Of each pack to those of all; ranks that are left over get zeros."""
        return trees[0] if self.ranks == 1 else nn.on_ranks(trees, jax.sharding.get_mesh())

    def part(self, tree: Any) -> list[Any]:
        """Back from all to those of each pack, on the host."""
        tree = jax.device_get(tree)
        if self.ranks == 1:
            return [tree]
        return [jax.tree.map(lambda x, rank=rank: x[rank], tree) for rank in range(self.count)]

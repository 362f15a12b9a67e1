"""Shapes that the tests check and the benchmark times: one list for both."""

from typing import NamedTuple

import numpy as np


class Case(NamedTuple):
    name: str
    lengths: tuple[int, ...]  # rows per segment
    num_heads: int
    num_kv_heads: int
    head_dim: int  # channels
    causal: bool = False
    window: int | None = None  # rows
    spans: tuple[tuple[int, int], ...] = ()  # first row and end of each
    dtype: str = "float32"

    @property
    def length(self) -> int:
        """Rows of the pack: the segments and at least one row of padding, in whole 16s."""
        return (sum(self.lengths) // 16 + 1) * 16

    def segment_ids(self) -> np.ndarray:
        ids = np.repeat(np.arange(1, len(self.lengths) + 1), self.lengths)
        return np.pad(ids, (0, self.length - ids.size)).astype(np.int32)

    def span_ids(self) -> np.ndarray | None:
        if not self.spans:
            return None
        ids = np.zeros(self.length, np.int32)
        for number, (first, end) in enumerate(self.spans, start=1):
            ids[first:end] = number
        return ids


CASES = (
    Case("one_row", (1,), 1, 1, 8),
    Case("images", (300, 1, 127, 37), 2, 2, 80),
    Case("tile_edges", (127, 128, 129), 1, 1, 64),
    Case("grouped", (100, 200), 6, 2, 32, causal=True),
    Case("window", (150, 250), 2, 1, 72, causal=True, window=70),
    Case("pictures_in_text", (200, 180), 4, 1, 32, causal=True, spans=((10, 150), (250, 260))),
    Case("wide_tiles", (400, 90), 1, 1, 128),
    Case("wide_tiles_causal", (30, 470), 2, 1, 64, causal=True),
    Case("wide_heads", (40, 90), 2, 1, 256),
    Case("bfloat16", (90, 150), 4, 2, 64, dtype="bfloat16"),
    # From here on for the benchmark.
    Case("tiny_tower", (200, 56, 300, 180, 90, 190), 4, 4, 32),
    Case("tiny_text", (200, 56, 300, 180, 90, 190), 4, 2, 32, causal=True),
    Case("tiny_tower_4k", (400, 56, 512, 600, 900, 198, 330, 100, 990), 4, 4, 32),
    Case("tower_8x576", (576,) * 8, 16, 16, 80),
    Case("tower_mixed", (64, 1536, 200, 333, 1024, 576, 90, 700, 80), 16, 16, 80),
    Case("text_2k", (500, 1500), 8, 2, 128, causal=True),
    Case("tower_16k", (4096, 1024, 576, 2304, 64, 3000, 1500, 3800), 8, 8, 64),
)

"""Published scores that a task's figure shows in grey; none of them was measured here.

Prompts, harnesses and resolutions differ from ours, so that they are landmarks, no baselines.
"""

from typing import NamedTuple


class Published(NamedTuple):
    """One score of a table.

    Attributes:
      who: model, and method where there is one.
      score: 0 to 1.
      source: where it stands.
    """

    who: str
    score: float
    source: str


_DC2 = "README of DreamMr/HR-Bench's authors, arXiv:2408.15556"
_BOARD = "official leaderboard of ScreenSpot-Pro, July 2026"
_RAP = "README of the released code of RAP"
PUBLISHED: dict[str, tuple[Published, ...]] = {
    "hrbench4k": (
        Published("Qwen2-VL-7B", 0.668, _DC2),
        Published("Qwen2-VL-2B", 0.640, _DC2),
        Published("GPT-4o", 0.590, _DC2),
    ),
    "hrbench8k": (
        Published("Qwen2-VL-7B", 0.665, _DC2),
        Published("Qwen2-VL-2B", 0.586, _DC2),
        Published("GPT-4o", 0.555, _DC2),
    ),
    "screenspot_pro": (
        Published("Qwen2-VL-7B", 0.016, _BOARD),
        Published("Qwen2.5-VL-7B", 0.268, _BOARD),
        Published("OS-Atlas-7B", 0.189, _BOARD),
    ),
    "vstar_bench": (Published("Qwen3-VL-8B", 0.813, _RAP),),
}


def published_for(benchmark: str) -> tuple[Published, ...]:
    """Returns the published scores of a benchmark; none for tasks of one's own."""
    return PUBLISHED.get(benchmark, ())

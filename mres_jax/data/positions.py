"""Rotary positions of decoder tokens, by rule. Integers made on the host; nothing traced.

Axes: t decoder positions; 3 = (time, row, column).

A prompt is given as runs: a number of text tokens, the `Grid` of one view, or `ClipGrids`.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from mres_jax.errors import ConfigError, PromptError
from mres_jax.geometry import Grid


class ClipGrids(NamedTuple):
    """A clip as one run: the grids of its views in order of time, which may differ in size.

    Attributes:
      grids: one per group of frames that are seen together; `t` is 1.
      time_step: steps of the time axis from one to the next, see `mrope_seconds`.
    """

    grids: tuple[Grid, ...]
    time_step: float = 1.0

    def num_visual_tokens(self, merge_size: int) -> int:
        """Visual tokens of all of them."""
        return sum(grid.num_visual_tokens(merge_size) for grid in self.grids)


Run = int | Grid | ClipGrids
Rule = Callable[[Sequence[Run], int], np.ndarray]


def rotary_positions(rule: str, runs: Sequence[Run], *, merge_size: int) -> np.ndarray:
    """Returns `int32 [3 t]`.

    Args:
      rule: a name in `POSITION_RULES`.
      runs: the prompt in order, text tokens as a count, views and clips as grids in patches.
      merge_size: patches per side of one visual token.

    Raises:
      ConfigError: unknown rule.
      PromptError: a grid that is not whole visual tokens.

    Example:
      >>> rotary_positions("mrope", [1, Grid(1, 4, 2), 1], merge_size=2).tolist()
      [[0, 1, 1, 3], [0, 1, 2, 3], [0, 1, 1, 3]]
    """
    if rule not in POSITION_RULES:
        raise ConfigError(f"positions: unknown rule {rule!r}; have {', '.join(POSITION_RULES)}.")
    for grid in (grid for run in runs if not isinstance(run, int) for grid in _grids(run)):
        if grid.h % merge_size or grid.w % merge_size or min(grid) < 1:
            raise PromptError(
                f"positions: grid_thw={tuple(grid)} is not whole visual tokens of "
                f"{merge_size} x {merge_size} patches."
            )
        if grid.t != 1 and rule != "plain":
            raise PromptError(
                f"positions: rule {rule} places views one at a time; grid_thw={tuple(grid)} is a "
                "clip. Give its views as ClipGrids."
            )
    return POSITION_RULES[rule](runs, merge_size)


def next_position(positions: np.ndarray, *, ends_in_text: bool) -> int:
    """Returns the rotary position of the token behind a prompt.

    Behind text it is one more, which is where training places an answer: a clip may reach further
    in time than the text that follows it. Behind a picture it is one more than all.

    Args:
      positions: `int32 [3 t]`, of the prompt.
      ends_in_text: whether its last token is text.
    """
    last = positions[:, -1:] if ends_in_text else positions
    return int(last.max(initial=-1)) + 1


def plain(runs: Sequence[Run], merge_size: int) -> np.ndarray:
    """Counts every token, visual or text: three equal rows."""
    length = sum(run if isinstance(run, int) else run.num_visual_tokens(merge_size) for run in runs)
    return np.tile(np.arange(length, dtype=np.int32), (3, 1))


def mrope(runs: Sequence[Run], merge_size: int) -> np.ndarray:
    """Text counts; a picture stands at one time and spreads over rows and columns.

    The views of a clip share rows and columns and follow each other in time, one step each; where
    they differ in size each counts its rows and columns from the clip's first position on, and none
    is stretched. After a picture or clip the count goes on behind its longest side, in visual
    tokens.

    Reference:
      Wang et al., 2024, "Qwen2-VL", arXiv:2409.12191, section 2.1 (M-RoPE); `get_rope_index` of
      Qwen2-VL in `transformers` 5.23.
    """
    return _placed(runs, merge_size, timing="views")


def mrope_seconds(runs: Sequence[Run], merge_size: int) -> np.ndarray:
    """As `mrope`, but time advances by `ClipGrids.time_step`, rounded down, from view to view.

    The step is a clip's seconds per view times the model's time steps per second. A clip whose
    views differ in size keeps one clock: the time of a view does not depend on the sizes.

    Reference:
      Bai et al., 2025, "Qwen2.5-VL", arXiv:2502.13923, section 2.1.2; `get_rope_index` of
      Qwen2.5-VL in `transformers` 5.23. Views of different sizes: positions of chunks in the code
      of ResAdapt (Liao et al., 2026, arXiv:2603.28610; Xnhyacinth/ResAdapt, `vllm_patch.py`).
    """
    return _placed(runs, merge_size, timing="seconds")


def mrope_blocks(runs: Sequence[Run], merge_size: int) -> np.ndarray:
    """As `mrope`, for prompts that part the views of a clip by texts with their times.

    Each view is a run of its own then, and stands at one time as a picture does.

    Reference:
      Bai et al., 2025, "Qwen3-VL Technical Report", arXiv:2511.21631 (textual time stamps);
      `get_rope_index` of Qwen3-VL in `transformers` 5.23.
    """
    for run in runs:
        if isinstance(run, ClipGrids):
            raise PromptError(
                f"positions: rule mrope_blocks takes the {len(run.grids)} views of a clip one by "
                "one, each behind the text of its time."
            )
    return _placed(runs, merge_size, timing="views")


def mrope_v4(runs: Sequence[Run], merge_size: int) -> np.ndarray:
    """As `mrope`, but the count goes on behind the largest position of a clip.

    So `transformers` 4.x and the released training code count; 5.x starts again inside clips that
    are longer in time than in space.
    """
    return _placed(runs, merge_size, timing="views", behind="all")


def mrope_seconds_v4(runs: Sequence[Run], merge_size: int) -> np.ndarray:
    """As `mrope_seconds`, but the count goes on as under `mrope_v4`."""
    return _placed(runs, merge_size, timing="seconds", behind="all")


def _placed(
    runs: Sequence[Run],
    merge_size: int,
    *,
    timing: Literal["views", "seconds"],
    behind: Literal["side", "all"] = "side",
) -> np.ndarray:
    blocks, counter = [np.zeros((3, 0), np.int32)], 0
    for run in runs:
        if isinstance(run, int):
            block, step = np.tile(np.arange(run, dtype=np.int32), (3, 1)), run
        else:
            step_of_time = run.time_step if isinstance(run, ClipGrids) else 1.0
            block = _clip_block(_grids(run), merge_size, 1.0 if timing == "views" else step_of_time)
            step = max(max(grid.h, grid.w) for grid in _grids(run)) // merge_size
            if behind == "all":
                step = int(block.max()) + 1
        blocks.append(block + np.int32(counter))
        counter += step
    return np.concatenate(blocks, axis=1)


def _clip_block(grids: Sequence[Grid], merge_size: int, time_step: float) -> np.ndarray:
    # float32, as torch multiplies whole numbers by a fraction: a time may fall on an edge.
    times = (np.arange(len(grids), dtype=np.float32) * np.float32(time_step)).astype(np.int32)
    blocks = []
    for time, grid in zip(times, grids, strict=True):
        shape = (1, grid.h // merge_size, grid.w // merge_size)
        block = np.indices(shape, np.int32).reshape(3, -1)
        block[0] = time
        blocks.append(block)
    return np.concatenate(blocks, axis=1)


def _grids(run: Grid | ClipGrids) -> tuple[Grid, ...]:
    return run.grids if isinstance(run, ClipGrids) else (run,)


POSITION_RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (plain, mrope, mrope_seconds, mrope_blocks, mrope_v4, mrope_seconds_v4)
}

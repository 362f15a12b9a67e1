"""Rotary positions of decoder tokens, by rule. Integers made on the host; nothing traced.

Axes: t decoder positions; 3 = (time, row, column).

A prompt is given as runs: a number of text tokens, or the `Grid` of one view.
"""

from collections.abc import Callable, Sequence

import numpy as np

from mres_jax.errors import ConfigError, PromptError
from mres_jax.geometry import Grid

Run = int | Grid
Rule = Callable[[Sequence[Run], int], np.ndarray]


def rotary_positions(rule: str, runs: Sequence[Run], *, merge_size: int) -> np.ndarray:
    """Returns `int32 [3 t]`.

    Args:
      rule: a name in `POSITION_RULES`.
      runs: the prompt in order, text tokens as a count and views as grids in patches.
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
    for run in runs:
        if isinstance(run, Grid) and (run.h % merge_size or run.w % merge_size or min(run) < 1):
            raise PromptError(
                f"positions: grid_thw={tuple(run)} is not whole visual tokens of "
                f"{merge_size} x {merge_size} patches."
            )
    return POSITION_RULES[rule](runs, merge_size)


def plain(runs: Sequence[Run], merge_size: int) -> np.ndarray:
    """Counts every token, visual or text: three equal rows."""
    length = sum(
        run.num_visual_tokens(merge_size) if isinstance(run, Grid) else run for run in runs
    )
    return np.tile(np.arange(length, dtype=np.int32), (3, 1))


def mrope(runs: Sequence[Run], merge_size: int) -> np.ndarray:
    """Text counts; a picture stands at one time and spreads over rows and columns.

    After a picture the count goes on behind its longer side, in visual tokens.

    Reference:
      Wang et al., 2024, "Qwen2-VL", arXiv:2409.12191, section 2.1 (M-RoPE).
    """
    blocks, counter = [np.zeros((3, 0), np.int32)], 0
    for run in runs:
        if isinstance(run, Grid):
            if run.t != 1:
                raise PromptError(
                    f"positions: rule mrope places still pictures; grid_thw={tuple(run)} is a clip."
                )
            rows, columns = run.h // merge_size, run.w // merge_size
            block = np.indices((1, rows, columns), np.int32).reshape(3, -1)
            step = max(rows, columns)
        else:
            block, step = np.tile(np.arange(run, dtype=np.int32), (3, 1)), run
        blocks.append(block + np.int32(counter))
        counter += step
    return np.concatenate(blocks, axis=1)


POSITION_RULES: dict[str, Rule] = {"plain": plain, "mrope": mrope}

"""What a run leaves to look at: rollouts and bad rows as lines, and strips of allocations."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mres_jax.data.spec import ProcessorSpec
from mres_jax.errors import BadRowError
from mres_jax.geometry import Size, View
from mres_jax.inference.show import png
from mres_jax.inference.strip import draw_strip
from mres_jax.resolution.allocator.budget import Allocation
from mres_jax.resolution.uniform import native_size, whole_view
from mres_jax.training.allocator.advantages import Judged
from mres_jax.training.allocator.prompts import Prompt
from mres_jax.training.allocator.rollouts import Group, plan_views
from mres_jax.training.metrics import BAD_ROWS, append_rows, drop_rows_after, read_rows

ROLLOUTS = "rollouts.jsonl"


class BadRows:
    """Rows whose pixels could not be read: named in the log and in a file, and counted.

    A run that goes on counts as if it had never stopped.

    Args:
      directory: of the run.
      log: takes a line.
    """

    def __init__(self, directory: pathlib.Path, log: Callable[[str], None]):
        self.file, self.log = directory / BAD_ROWS, log
        self._rows: list[dict[str, Any]] = []

    def begin(self, first: int) -> None:
        """Forgets what was found in steps that will be taken again."""
        drop_rows_after(self.file, first)
        self._rows = read_rows(self.file)

    @property
    def count(self) -> int:
        """So far, of the questions that are trained on."""
        return sum(not row["held_out"] for row in self._rows)

    def note(self, step: int, error: BadRowError, *, held_out: bool = False) -> None:
        """Names a row once per step, and once as it is held out there."""
        row = {"step": step, "row": error.row, "reason": error.reason, "held_out": held_out}
        if row in self._rows:
            return
        self._rows.append(row)
        append_rows(self.file, [row])
        what = "Left out of the held-out questions" if held_out else "Another row is asked"
        self.log(f"step {step:5d} {error} {what}; all such rows stand in {BAD_ROWS}")


def write_rollouts(
    directory: pathlib.Path, step: int, groups: Sequence[Group], judged: Judged
) -> None:
    """Appends a line for each allocation of a step, with all its answers."""
    rows = []
    for i, group in enumerate(groups):
        for m, each in enumerate(group.tries):
            row = {
                "step": step,
                "id": group.prompt.row.id,
                "allocation": m,
                "scales": [round(float(x), 4) for x in each.scales],
                "tokens": list(each.allocation.tokens),
                "retention": round(each.allocation.retention, 6),
                "answers": [answer.text for answer in each.answers],
                "rewards": [reward.total for reward in each.rewards],
                "right": [reward.right for reward in each.rewards],
                "advantage": round(float(judged.capo.allocations[i, m]), 6),
                "dropped": bool(judged.dropped[i]),
            }
            rows.append(row)
    append_rows(directory / ROLLOUTS, rows)


def draw_allocation(prompt: Prompt, scales: np.ndarray, spec: ProcessorSpec) -> bytes:
    """Returns a PNG of the frames of a prompt, each at the size that its scale comes to."""
    allocation, _ = plan_views(prompt, scales, spec)
    views, native = _frame_views(prompt, allocation, spec)
    return png(draw_strip(prompt.frames, views, native))


def _frame_views(
    prompt: Prompt, allocation: Allocation, spec: ProcessorSpec
) -> tuple[list[View], list[Size]]:
    """A view of each frame, and what each would have at native resolution."""
    targets: dict[int, Size] = {}
    natives: dict[int, Size] = {}
    for unit, target in zip(prompt.units, allocation.sizes, strict=True):
        for frame in unit.frames:
            natives[frame] = native_size(unit.extent, spec)
            if target:
                targets[frame] = target
    views = [
        whole_view(i, Size(*prompt.frames[i].shape[:2]), target) for i, target in targets.items()
    ]
    return views, [natives[i] for i in range(len(prompt.frames))]

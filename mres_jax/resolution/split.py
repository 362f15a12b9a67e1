"""Pictures cut into numbered squares, for models that were trained on them."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from mres_jax.data.spec import ProcessorSpec, SplitRule
from mres_jax.data.splits import (
    LARGEST,
    longest_size,
    split_views,
    squashed_frame,
    squashed_view,
)
from mres_jax.errors import PolicyError, suggest
from mres_jax.geometry import ClipSize, Extent, Size, View
from mres_jax.resolution.clips import over_time
from mres_jax.resolution.policy import Policy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split(Policy):
    """Every picture as SmolVLM takes it, `split`, `split:1024` or `split,mode=whole`.

    The longer side becomes `longest` px (the model's own if none is given), then the picture is cut
    into the model's squares and shown whole behind them. Small pictures are enlarged, as the model
    was trained. `mode=whole` shows the whole alone, the released processor's
    `do_image_splitting=False`. Of a clip each frame is shown whole, whatever the options.

    Reference:
      Marafioti et al., 2025, "SmolVLM", arXiv:2504.05299; `SmolVLMImageProcessor` of `transformers`
      5.23.
    """

    name: ClassVar[str] = "split"
    example: ClassVar[str] = "split:1024"
    value: ClassVar[str] = "longest"
    takes_clips: ClassVar[bool] = True
    longest: int | None = None  # pixels
    mode: str | None = None

    def __post_init__(self):
        if self.longest is not None and not 1 <= self.longest <= LARGEST:
            raise PolicyError(f"policy split: longest={self.longest} is not 1 to {LARGEST} px.")
        if self.mode not in (None, *MODES):
            raise PolicyError(
                f"policy split: unknown mode {self.mode!r}{suggest(self.mode, MODES)}; have "
                f"{', '.join(MODES)}."
            )
        if self.mode == "squares":  # one spelling for one meaning
            object.__setattr__(self, "mode", None)

    def check(self, spec: ProcessorSpec) -> None:
        """Raises `PolicyError` if the model knows no numbered squares, or not so many."""
        rule = _rule(self, spec)
        longest = self.longest or rule.longest
        if self.mode is None and -(-longest // rule.side) > rule.most:
            raise PolicyError(
                f"policy {self}: {longest} px are {-(-longest // rule.side)} squares of "
                f"{rule.side} px, but the vocabulary numbers at most {rule.most}. Use "
                f"split:{rule.most * rule.side}."
            )

    def __call__(self, sizes: Sequence[Extent], question: str, spec: ProcessorSpec) -> list[View]:
        """Returns the squares and the whole of each picture."""
        self.check(spec)
        rule = _rule(self, spec)
        longest = self.longest or rule.longest
        views = []
        for item, size in enumerate(sizes):
            if isinstance(size, ClipSize):
                views += over_time(squashed_frame(item, size.size, rule), size, spec)
            elif self.mode == "whole":
                through = (longest_size(size, longest),)
                views.append(squashed_view(item, size, rule, through=through))
            else:
                views += split_views(item, size, rule, longest=longest)
        return views


def fewest_squares(item: int, size: Size, rule: SplitRule, most: int | None) -> list[View]:
    """Returns the split of a picture at the largest whole number of squares a side, up to the
    model's own, at which it is cut into no more than `most`."""
    views: list[View] = []
    for longest in range(rule.longest, 0, -rule.side):
        views = split_views(item, size, rule, longest=longest)
        if most is None or len(views) <= most + 1:
            break
    return views


MODES = ("squares", "whole")


def _rule(policy: Policy, spec: ProcessorSpec) -> SplitRule:
    if spec.split is None:
        raise PolicyError(
            f"policy {policy}: the model was not trained on numbered squares. Use "
            f"{spec.default_policy}."
        )
    return spec.split

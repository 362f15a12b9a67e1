"""Views of one request made smaller until they fit a static buffer, and a word about it."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from mres_jax.data.spec import ProcessorSpec
from mres_jax.errors import PolicyError
from mres_jax.geometry import Size, View
from mres_jax.resolution.uniform import within_budget


class Shrunk(NamedTuple):
    """Views within a budget, and what it took."""

    views: list[View]
    patches_before: int
    patches_after: int

    @property
    def is_smaller(self) -> bool:
        """Whether anything was changed."""
        return self.patches_after < self.patches_before

    def __str__(self) -> str:
        return f"views shrunk from {self.patches_before} to {self.patches_after} patches"


def shrink_views_to(views: Sequence[View], *, max_patches: int, spec: ProcessorSpec) -> Shrunk:
    """Returns the views, the largest ones lowered to a common budget so that all fit.

    Small views are left as they are: the budget of patches per view is the largest one under which
    the sum fits. The aspect ratio of each crop is kept.

    Raises:
      PolicyError: not even one visual token per view fits, or a view has a fixed canvas.
    """
    merge = spec.merge_size**2
    before = [spec.num_visual_tokens(spec.grid(view.encoded_size)) for view in views]
    budget = max_patches // merge
    if sum(before) <= budget:
        return Shrunk(list(views), sum(before) * merge, sum(before) * merge)
    if len(views) > budget:
        raise PolicyError(
            f"shrink: {len(views)} views need at least {len(views) * merge} patches, but "
            f"max_patches={max_patches}. Give fewer pictures, or raise `max_patches`."
        )
    low, high = 1, max(before)
    while low < high:  # the largest level with sum(min(tokens, level)) <= budget
        level = (low + high + 1) // 2
        fits = sum(min(n, level) for n in before) <= budget
        low, high = (level, high) if fits else (low, level - 1)
    after = [_shrink(view, n, low, spec) for view, n in zip(views, before, strict=True)]
    total = sum(spec.num_visual_tokens(spec.grid(view.encoded_size)) for view in after)
    return Shrunk(after, sum(before) * merge, total * merge)


def _shrink(view: View, tokens: int, level: int, spec: ProcessorSpec) -> View:
    if tokens <= level:
        return view
    if view.canvas or view.window or spec.image_size is not None or spec.tiles is not None:
        raise PolicyError(
            f"shrink: the view of picture {view.item} has a fixed size of {tokens} visual tokens, "
            f"but only {level} are left for it. Give fewer pictures, or raise `max_patches`."
        )
    size = within_budget(Size(*view.crop.size), view.size, level, spec)
    return dataclasses.replace(view, size=size)

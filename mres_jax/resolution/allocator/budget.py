"""Scales of pictures -> sizes in whole visual tokens, alone or within a budget. Host side, numpy.

An allocation is kept in proportion: under a budget all scales are multiplied by one factor, the
largest under which the true tokens fit, and what rounding leaves over goes to the pictures whose
next size comes first.
"""

import bisect
import dataclasses
import functools
import heapq
import itertools
from collections.abc import Sequence

import numpy as np

from mres_jax.data.spec import ProcessorSpec
from mres_jax.errors import PolicyError
from mres_jax.geometry import Extent, Size
from mres_jax.resolution.uniform import native_size, scaled_size


@dataclasses.dataclass(frozen=True, kw_only=True)
class Allocation:
    """Sizes of the pictures of one request, in whole visual tokens.

    Attributes:
      scales: per side and picture, as asked for; 0 = not looked at.
      sizes: what each picture is resized to, pixels; None where it is not looked at.
      tokens: visual tokens of each.
      native_tokens: visual tokens of each at native resolution.
    """

    scales: tuple[float, ...]
    sizes: tuple[Size | None, ...]
    tokens: tuple[int, ...]
    native_tokens: tuple[int, ...]

    @property
    def retention(self) -> float:
        """True visual tokens / visual tokens at native resolution; above 1 when enlarged."""
        native = sum(self.native_tokens)
        return sum(self.tokens) / native if native else 1.0

    @property
    def wasted(self) -> float:
        """Share of the asked area above native size that a limit of pixels took back, 0 to 1.

        Asked is the native area times the square of the scale.
        """
        asked = [s * s * n for s, n in zip(self.scales, self.native_tokens, strict=True)]
        above = sum(max(0.0, a - n) for a, n in zip(asked, self.native_tokens, strict=True))
        got = sum(max(0, t - n) for t, n in zip(self.tokens, self.native_tokens, strict=True))
        return max(0.0, 1 - got / above) if above > 0 else 0.0


def allocate(scales: Sequence[float], sizes: Sequence[Extent], spec: ProcessorSpec) -> Allocation:
    """Returns the sizes that scales come to.

    Args:
      scales: per side, one for each picture; 0 leaves it out.
      sizes: of the upright pictures, pixels; for each group of frames of a clip the clip's.
      spec: of the model.

    Raises:
      PolicyError: as many scales as pictures are needed, none of them negative or no number, and
        one above 0.
    """
    checked = _check_scales(scales, sizes)
    targets = [
        _size_at(size, scale, spec) if scale else None
        for size, scale in zip(sizes, checked, strict=True)
    ]
    return _allocation(checked, targets, sizes, spec)


def allocate_within(
    scales: Sequence[float],
    sizes: Sequence[Extent],
    spec: ProcessorSpec,
    *,
    tokens: int,
    max_scale: float,
    drop: bool = False,
) -> Allocation:
    """Returns an allocation brought to a budget of visual tokens, in proportion.

    The budget is never exceeded. What is left of it is less than the next larger size of any
    picture costs, unless all of them have reached `max_scale` or the model's largest size.

    Args:
      scales: per side, one for each picture; 0 leaves it out.
      sizes: of the upright pictures, pixels.
      spec: of the model.
      tokens: the budget.
      max_scale: largest scale that a picture may get.
      drop: where the budget is below the smallest sizes together, leave out the pictures of the
        smallest scales until it is not: selection of frames as the limit of a small budget.

    Raises:
      PolicyError: see `allocate`; the budget is below the smallest sizes together.
    """
    checked = _check_scales(scales, sizes)
    ladders = [_ladder(size, max_scale, spec) for size in sizes]
    floors = [ladder[0].tokens for ladder in ladders]
    kept = [i for i, scale in enumerate(checked) if scale]
    if drop:
        kept = _affordable(kept, checked, floors, tokens)
    needed = sum(floors[i] for i in kept)
    if needed > tokens or not kept:
        raise PolicyError(
            f"allocator: a budget of {tokens} visual tokens, but {len(kept) or 1} pictures take at "
            f"least {needed or min(floors)}. Raise the retention, give fewer pictures, or keep "
            "the best of them alone (top=)."
        )
    steps = _climb({i: (checked[i], ladders[i]) for i in kept}, tokens - needed)
    targets = [ladders[i][steps[i]].size if i in steps else None for i in range(len(sizes))]
    return _allocation(checked, targets, sizes, spec)


def retention_tokens(retention: float, sizes: Sequence[Extent], spec: ProcessorSpec) -> int:
    """Returns the budget, in visual tokens, that a share of native resolution is; at least 1.

    Raises:
      PolicyError: a share that is not above 0.
    """
    if not (np.isfinite(retention) and retention > 0):
        raise PolicyError(f"allocator: retention={retention} must be above 0, for example 0.25.")
    native = sum(native_size(size, spec).area for size in sizes) // spec.stride**2
    return max(1, int(native * retention + 1e-9))


@dataclasses.dataclass(frozen=True)
class _Step:
    """One size on the way up, and the scale from which on a picture has it."""

    scale: float
    tokens: int
    size: Size


@functools.lru_cache(maxsize=256)  # frames of a clip are of one size
def _ladder(size: Extent, max_scale: float, spec: ProcessorSpec) -> tuple[_Step, ...]:
    """All sizes of a picture up to a scale, each with more tokens than the one before."""
    native = native_size(size, spec)
    edges = {0.0}
    for extent in native:
        most = int(extent * max_scale / spec.stride) + 1
        edges |= {(n - 0.5) * spec.stride / extent for n in range(1, most + 1)}
    ordered = sorted(edges)
    # Pixels are whole, so a size may begin half a pixel beyond its edge; between two edges that
    # are nearer than that lies the middle.
    tried = {(low + high) / 2 for low, high in itertools.pairwise(ordered)}
    tried |= {edge + 0.51 / max(extent, 1) for edge in ordered[1:] for extent in native}
    steps: list[_Step] = []
    for scale in [1e-9, *sorted(tried)]:
        if scale > max_scale and steps:
            break
        target = _size_at(size, min(scale, max_scale), spec)
        tokens = target.area // spec.stride**2
        if not steps or tokens > steps[-1].tokens:
            edge = ordered[bisect.bisect_right(ordered, scale) - 1]
            steps.append(_Step(edge, tokens, target))
    return tuple(steps)


def _size_at(extent: Extent, scale: float, spec: ProcessorSpec) -> Size:
    """The size of a picture or of each frame of a group at a scale, pixels.

    Frames go down to the model's smallest picture: the smallest frame of a video processor is meant
    for clips whose frames all have one size.

    Reference:
      The released code of ResAdapt (arXiv:2603.28610) resizes a frame to 56 x 56 px at the least.
    """
    return scaled_size(extent, scale, spec, min_pixels=spec.min_pixels)


def _climb(pictures: dict[int, tuple[float, tuple[_Step, ...]]], spare: int) -> dict[int, int]:
    """Takes the steps in the order in which one common factor reaches them, where they fit."""
    taken = dict.fromkeys(pictures, 0)
    waiting = [_event(i, 1, *pictures[i]) for i in pictures if len(pictures[i][1]) > 1]
    heapq.heapify(waiting)
    while waiting:
        *_, i, step = heapq.heappop(waiting)
        scale, ladder = pictures[i]
        cost = ladder[step].tokens - ladder[step - 1].tokens
        if cost > spare:
            continue  # this picture goes no further
        spare -= cost
        taken[i] = step
        if step + 1 < len(ladder):
            heapq.heappush(waiting, _event(i, step + 1, scale, ladder))
    return taken


def _event(
    i: int, step: int, scale: float, ladder: tuple[_Step, ...]
) -> tuple[float, float, int, int]:
    """Sorts by the factor at which a picture reaches a size, then larger scales first."""
    return ladder[step].scale / scale, -scale, i, step


def _affordable(
    kept: list[int], scales: Sequence[float], floors: Sequence[int], tokens: int
) -> list[int]:
    """The pictures of the largest scales whose smallest sizes fit together, in order."""
    chosen, total = [], 0
    for i in sorted(kept, key=lambda i: (-scales[i], i)):
        if total + floors[i] > tokens:
            break
        chosen.append(i)
        total += floors[i]
    return sorted(chosen)


def _allocation(
    scales: Sequence[float],
    targets: Sequence[Size | None],
    sizes: Sequence[Extent],
    spec: ProcessorSpec,
) -> Allocation:
    area = spec.stride**2
    return Allocation(
        scales=tuple(scales),
        sizes=tuple(targets),
        tokens=tuple(target.area // area if target else 0 for target in targets),
        native_tokens=tuple(native_size(size, spec).area // area for size in sizes),
    )


def _check_scales(scales: Sequence[float], sizes: Sequence[Extent]) -> list[float]:
    checked = [float(scale) for scale in scales]
    if len(checked) != len(sizes):
        raise PolicyError(f"allocator: {len(checked)} scales for {len(sizes)} pictures.")
    for i, scale in enumerate(checked):
        if not np.isfinite(scale) or scale < 0:
            raise PolicyError(
                f"allocator: picture {i} has the scale {scale}; it must be 0 or more."
            )
    if not any(checked):
        raise PolicyError("allocator: no picture has a scale above 0, so nothing would be seen.")
    return checked

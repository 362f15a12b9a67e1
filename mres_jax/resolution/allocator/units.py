"""What an allocation gives sizes to: each picture of a request, and each group of frames of a clip.

An allocator decides per frame; frames that the encoder sees together share the mean of their
scales. Axes: t frames of all items in order, u units.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mres_jax.data.spec import ProcessorSpec
from mres_jax.geometry import Box, ClipSize, Extent, View
from mres_jax.resolution.allocator.budget import Allocation
from mres_jax.resolution.uniform import whole_view


class Unit(NamedTuple):
    """One thing that has a size of its own.

    Attributes:
      item: index in the request.
      extent: of the item.
      frames: of all frames of the request, from 0, those that it shows; the last one of a clip may
        stand twice.
      first: of them, the number of the item's first frame.
    """

    item: int
    extent: Extent
    frames: tuple  # of int
    first: int


def units_of(extents: Sequence[Extent], spec: ProcessorSpec) -> list[Unit]:
    """Returns the units of pictures and clips, in order."""
    units, first = [], 0
    for item, extent in enumerate(extents):
        count = len(extent.times) if isinstance(extent, ClipSize) else 1
        groups: Sequence[tuple[int, ...]] = [(0,)]
        if isinstance(extent, ClipSize):
            groups = extent.groups(spec.temporal_patch_size)
        units += [Unit(item, extent, tuple(first + i for i in group), first) for group in groups]
        first += count
    return units


def unit_scales(scales: Float[np.ndarray, " t"], units: Sequence[Unit]) -> Float[np.ndarray, " u"]:
    """Returns the scale of each unit: the mean of its frames'.

    Reference:
      The released code of ResAdapt (arXiv:2603.28610) averages the two frames of a pair so.
    """
    return np.array([scales[list(dict.fromkeys(unit.frames))].mean() for unit in units])


def unit_views(units: Sequence[Unit], allocation: Allocation) -> list[View]:
    """Returns the views of what is looked at; sizes of the allocation are those of the units."""
    views = []
    for unit, target in zip(units, allocation.sizes, strict=True):
        if target is None:
            continue
        if not isinstance(unit.extent, ClipSize):
            views.append(whole_view(unit.item, unit.extent, target))
            continue
        frames = tuple(i - unit.first for i in unit.frames)
        times = unit.extent.times
        views.append(
            View(
                item=unit.item,
                crop=Box(0, 0, *unit.extent.size),
                size=target,
                time=(times[frames[0]] + times[frames[-1]]) / 2,
                frames=frames,
                group=unit.item,
            )
        )
    return views

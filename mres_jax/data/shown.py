"""Views -> what the encoder gets of them: patch rows, their places, canvases.

Axes: p patches, r values of a patch row.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mres_jax.data._pixels import Pixels
from mres_jax.data.low_resolution import low_resolution_rows
from mres_jax.data.patches import block_positions, patchify, patchify_frames, widen
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.views import cut_window, is_too_large, render_view
from mres_jax.geometry import Box, Grid, View
from mres_jax.protocols import Clip


class Shown(NamedTuple):
    """What the encoder gets of all views, one after the other; fields as of `Example`."""

    patches: np.ndarray
    positions: np.ndarray
    still: np.ndarray | None
    canvases: tuple[np.ndarray, ...]


def show(
    images: Sequence[Pixels | Clip],
    views: Sequence[View],
    grids: Sequence[Grid],
    spec: ProcessorSpec,
) -> Shown:
    """Renders and cuts all views; rows have several frames where a view has."""
    # With one frame a view, rows of clips are rows of pictures.
    has_clip = spec.temporal_patch_size > 1 and any(view.frames for view in views)
    row_size = spec.patch_row_size * (spec.temporal_patch_size if has_clip else 1)
    rows = [np.zeros((0, row_size), np.uint8 if spec.canvas is None else np.float32)]
    places, still = [np.zeros((0, 2), np.int32)], [np.zeros(0, bool)]
    canvases = []
    for view, grid, pixels in zip(views, grids, _rendered(images, views, spec), strict=True):
        if spec.canvas is not None:
            (picture,) = pixels
            patches = low_resolution_rows(picture, grid, spec)
            positions = block_positions(grid, merge_size=spec.merge_size)
            canvases.append(picture)
        elif view.frames:
            patches, positions = patchify_frames(
                pixels, patch_size=spec.patch_size, merge_size=spec.merge_size
            )
        else:
            patches, positions = patchify(
                pixels[0], patch_size=spec.patch_size, merge_size=spec.merge_size
            )
        rows.append(patches if patches.shape[1] == row_size else widen(patches, row_size))
        places.append(positions)
        still.append(np.full(len(patches), not view.frames))
    return Shown(
        np.concatenate(rows),
        np.concatenate(places),
        np.concatenate(still) if has_clip else None,
        tuple(canvases),
    )


def _rendered(
    images: Sequence[Pixels | Clip], views: Sequence[View], spec: ProcessorSpec
) -> Iterator[list[np.ndarray]]:
    """Pixels of each view, one array a frame.

    Windows of one picture share its canvas; a view that is resized further than the one before it
    goes on from there.
    """
    last, whole = None, np.zeros(0)
    for view in views:
        item = images[view.item]
        if isinstance(item, Clip):
            frames = {
                i: render_seen(item.frames[i], view, spec) for i in dict.fromkeys(view.frames)
            }
            yield [frames[i] for i in view.frames]
            continue
        if is_too_large(view):
            yield [render_seen(item, view, spec)]
            continue
        uncut = dataclasses.replace(view, window=None, tile=None)
        if uncut != last:
            rest = last and _resized_further(last, uncut)
            whole = render_seen(whole, rest, spec) if rest else render_seen(item, uncut, spec)
            last = uncut
        yield [whole if view.window is None else cut_window(whole, view)]


def _resized_further(last: View, view: View) -> View | None:
    """What is left to do for a view of the same crop, as a view of what the last one became."""
    steps = (*last.through, last.size)
    is_same = (last.item, last.crop, last.canvas) == (view.item, view.crop, None)
    if view.canvas or not is_same or view.through[: len(steps)] != steps:
        return None
    rest = view.through[len(steps) :]
    return dataclasses.replace(view, crop=Box(0, 0, *last.size), through=rest)


def render_seen(pixels: Pixels, view: View, spec: ProcessorSpec) -> np.ndarray:
    """Returns `[H W 3]`, a view as a model's processor makes it; see `render_view`."""
    return render_view(
        pixels,
        view,
        background=spec.background,
        pad_first=spec.pad_first,
        resample=spec.resample,
    )

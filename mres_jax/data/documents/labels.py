"""Names what each patch shows, at the size a model looks at: its character, its surroundings.

An auxiliary loss on these labels is what makes reading learnable for a very small tower.
"""

from typing import NamedTuple

import numpy as np

from mres_jax.data.documents.document import Document
from mres_jax.data.documents.render import KEY, VALUE
from mres_jax.data.documents.vocabulary import KEYS, LABEL_CHARSET, SC_ANSWERS
from mres_jax.errors import MresError
from mres_jax.geometry import Box, Grid, Size, View

PLACES = 20  # strips of a view that `place_labels` tells apart, along each side
MAX_INDEX = 15  # places of a string beyond this one share a label
LOGO_TOPICS = ("logo", "logo side", "logo colour")
IGNORE = -1


class _Overlaps(NamedTuple):
    """One row per (glyph, cell) that touch."""

    cell: np.ndarray  # raster index
    glyph: np.ndarray
    share: np.ndarray  # of the glyph's box that lies in the cell
    cover: np.ndarray  # of the cell that the glyph's box fills


def patch_labels(
    document: Document,
    view: View | None = None,
    *,
    patch_size: int,
    columns: int = 1,
    min_share: float = 0.2,
    min_cover: float = 0.25,
) -> dict[str, np.ndarray]:
    """Labels every patch of a view of a document, in raster order.

    A patch belongs to the glyph that has the largest share of its box in it. It is labelled where
    that share is at least `min_share` or the box fills `min_cover` of the patch; a patch that is
    only grazed is -1 in every array, a patch without text is 0.

    Args:
      view: what is looked at and at which size; None is the whole picture at its own size, of
        which incomplete patches at the right and bottom are left out.
      patch_size: pixels of the view.
      columns: cells per patch from left to right; 2 tells two narrow characters of one patch apart.

    Returns:
      `int32 [rows cols*columns]` arrays:
      `char`: 1 + index into `LABEL_CHARSET` (whose head is `CHARSET`);
      `key`: 1 + index into `KEYS` under the glyphs of a key, else 0;
      `field`: 1 + index into `KEYS` of the key that a value's glyph answers to; 0 elsewhere and for
        bare values;
      `index`: 1 + place of the glyph in its value, at most 16, else 0.
    """
    view = view or _whole(document, patch_size)
    grid = _grid(view, patch_size)
    cell = (patch_size, patch_size / columns)
    shape = (grid.h, grid.w * columns)
    boxes = _seen_boxes(document.glyphs.boxes, view)
    found = _overlaps(boxes, cell, shape)
    order = np.argsort(found.share, kind="stable")  # the last one written wins
    winner = np.full(shape[0] * shape[1], -1)
    winner[found.cell[order]] = found.glyph[order]
    clear = (found.share >= min_share) | (found.cover >= min_cover)
    is_clear = np.zeros(winner.shape, bool)
    is_clear[found.cell[order]] = clear[order]
    return _name(document, winner.reshape(shape), is_clear.reshape(shape))


def scene_labels(
    document: Document, view: View | None = None, *, patch_size: int
) -> dict[str, np.ndarray]:
    """Labels every patch of a view with what is known about the picture, in raster order.

    Args:
      document: as for `patch_labels`.
      view: likewise.
      patch_size: likewise.

    Returns:
      `int32 [rows cols]` by topic of `SC_ANSWERS`: 1 + index of the answer. Facts about the logo
      stand on the patches whose centre is in its square, all others on every patch; where a fact
      is unknown or is no answer of its topic, -1.
    """
    view = view or _whole(document, patch_size)
    grid = _grid(view, patch_size)
    shape, on_logo = (grid.h, grid.w), np.zeros((grid.h, grid.w), bool)
    if document.logo_box is not None:
        top, left, bottom, right = _seen_boxes(np.array([document.logo_box]), view)[0]
        y, x = ((np.arange(count) + 0.5) * patch_size for count in shape)
        on_logo = ((top <= y) & (y < bottom))[:, None] & ((left <= x) & (x < right))
    labels = {}
    for topic, answers in SC_ANSWERS.items():
        fact = document.facts.get(topic)
        label = 1 + answers.index(fact) if fact in answers else IGNORE
        where = on_logo if topic in LOGO_TOPICS else True
        labels[topic] = np.broadcast_to(np.where(where, label, IGNORE), shape).astype(np.int32)
    return labels


def place_labels(view: View, *, patch_size: int) -> dict[str, np.ndarray]:
    """Names where in its view each patch stands, in raster order.

    Returns:
      `int32 [rows cols]`: `across` and `down`, 1 + which of `PLACES` equal strips, from the left
      and from the top, holds the middle of the patch.
    """
    grid = _grid(view, patch_size)
    down, across = (
        (1 + np.floor((np.arange(n) + 0.5) * PLACES / n)).astype(np.int32) for n in (grid.h, grid.w)
    )
    shape = (grid.h, grid.w)
    return {
        "across": np.broadcast_to(across[None], shape),
        "down": np.broadcast_to(down[:, None], shape),
    }


def _grid(view: View, patch_size: int) -> Grid:
    grid = view.grid(patch_size)
    if not grid.num_patches:
        raise MresError(
            f"patch labels: a view of {view.encoded_size.width} x {view.encoded_size.height} px "
            f"has no patch of {patch_size} px. Enlarge the view."
        )
    return grid


def _whole(document: Document, patch_size: int) -> View:
    height, width = (side // patch_size * patch_size for side in document.size)
    return View(item=0, crop=Box(0, 0, height, width), size=Size(height, width))


def _seen_boxes(boxes: np.ndarray, view: View) -> np.ndarray:
    """Glyph boxes in pixels of the view, cut at the border of its crop, `float [n 4]`."""
    crop = view.crop
    low, high = np.array([crop.top, crop.left] * 2), np.array([crop.bottom, crop.right] * 2)
    scale = np.array([view.size.height / crop.size.height, view.size.width / crop.size.width] * 2)
    seen = (np.clip(boxes, low, high) - low) * scale
    if view.canvas is not None:
        margins = [(c - s) // 2 for c, s in zip(view.canvas, view.size, strict=True)]
        seen = seen + np.array(margins * 2)
    return seen


def _overlaps(boxes: np.ndarray, cell: tuple[float, float], shape: tuple[int, int]) -> _Overlaps:
    """All pairs of a glyph and a cell that touch, by trying the most cells any glyph spans."""
    sides = np.array([*cell, *cell])
    first = np.floor(boxes[:, :2] / sides[:2]).astype(int)
    last = np.ceil(boxes[:, 2:] / sides[2:]).astype(int)
    area = np.maximum(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), 1e-9)
    span = (last - first).max(initial=0, axis=0)
    parts = []
    for i in range(span[0]):
        for j in range(span[1]):
            at = first + np.array([i, j])
            low = np.maximum(boxes[:, :2], at * sides[:2])
            high = np.minimum(boxes[:, 2:], (at + 1) * sides[2:])
            common = np.prod(np.maximum(high - low, 0), axis=1)
            inside = (common > 0) & (at[:, 0] < shape[0]) & (at[:, 1] < shape[1])
            glyph = np.flatnonzero(inside)
            cells = at[glyph, 0] * shape[1] + at[glyph, 1]
            cover = common[glyph] / (cell[0] * cell[1])
            parts.append(_Overlaps(cells, glyph, common[glyph] / area[glyph], cover))
    if not parts:
        return _Overlaps(*(np.zeros(0, int),) * 2, *(np.zeros(0),) * 2)
    return _Overlaps(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _name(document: Document, winner: np.ndarray, is_clear: np.ndarray) -> dict[str, np.ndarray]:
    glyphs = document.glyphs
    char = np.array([1 + LABEL_CHARSET.index(chr(c)) for c in glyphs.codes], np.int32)
    key_ids = [KEYS.index(f.key) + 1 if f.key else 0 for f in document.fields]
    keys = np.array([*key_ids, 0], np.int32)[glyphs.fields]  # -1 takes the last, 0
    is_value = glyphs.parts == VALUE
    per_glyph = {
        "char": char,
        "key": np.where(glyphs.parts == KEY, keys, 0),
        "field": np.where(is_value, keys, 0),
        "index": np.where(is_value, np.minimum(glyphs.indices, MAX_INDEX) + 1, 0),
    }
    labels = {}
    for name, values in per_glyph.items():
        named = np.append(values, 0)[winner]  # -1, no glyph, takes the last
        labels[name] = np.where((winner >= 0) & ~is_clear, IGNORE, named).astype(np.int32)
    return labels

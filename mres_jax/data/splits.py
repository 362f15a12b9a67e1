"""Pictures in numbered squares, as SmolVLM reads them: which sizes, which pixels, which texts.

The picture is brought to a longest side, then to whole squares with its ratio bent, and cut; behind
all squares stands the whole picture, squashed to one. A picture of one square is not cut. Each
square is a picture of its own to the tower; texts with row and column part them.
"""

import math
from collections.abc import Iterator, Sequence

from mres_jax.data.spec import ProcessorSpec, SplitRule
from mres_jax.errors import PromptError
from mres_jax.geometry import Box, Size, View

LARGEST = 4_096  # longest side that the released processor makes, pixels


def longest_size(size: Size, longest: int) -> Size:
    """Returns a picture's size with its longer side at `longest`, the shorter one even, pixels.

    Reference:
      `get_resize_output_image_size` of SmolVLM in `transformers` 5.23, whose rounding this keeps.
    """
    ratio = size.width / size.height
    if size.width >= size.height:
        return Size(max(_even(int(longest / ratio)), 1), longest)
    return Size(longest, max(_even(int(longest * ratio)), 1))


def whole_squares(size: Size, side: int) -> Size:
    """Returns the squares that hold a picture, as one size: nothing is left out or padded, pixels.

    Reference:
      `resize_for_vision_encoder` of SmolVLM in `transformers` 5.23, whose rounding this keeps.
    """
    ratio = size.width / size.height
    if size.width >= size.height:
        width = _up(size.width, side)
        return Size(_up(int(width / ratio), side), width)
    height = _up(size.height, side)
    return Size(height, _up(int(height * ratio), side))


def split_views(item: int, size: Size, rule: SplitRule, *, longest: int) -> list[View]:
    """Returns the squares of a picture by row and then the whole, or the whole alone if it is one.

    Args:
      item: index of the picture.
      size: of the picture, pixels.
      rule: of the model.
      longest: what its longer side becomes, pixels.
    """
    first = longest_size(size, longest)
    outer = whole_squares(first, rule.side)
    crop = Box(0, 0, *size)
    if outer == (rule.side, rule.side):
        return [squashed_view(item, size, rule, through=(first,))]
    corners = [
        (top, left)
        for top in range(0, outer.height, rule.side)
        for left in range(0, outer.width, rule.side)
    ]
    tiles = [
        View(
            item=item,
            crop=crop,
            through=(first,),
            size=outer,
            window=Box(top, left, top + rule.shown, left + rule.shown),
            group=item,
            tile=number,
        )
        for number, (top, left) in enumerate(corners)
    ]
    return [*tiles, squashed_view(item, size, rule, through=(first, outer))]


def squashed_view(
    item: int, size: Size, rule: SplitRule, *, through: tuple[Size, ...] = ()
) -> View:
    """Returns the view of a whole picture as one square."""
    square = Size(rule.side, rule.side)
    window = None if rule.shown == rule.side else Box(0, 0, rule.shown, rule.shown)
    return View(
        item=item,
        crop=Box(0, 0, *size),
        through=through,
        size=square,
        window=window,
        group=item,
    )


def squashed_frame(item: int, size: Size, rule: SplitRule) -> View:
    """Returns how each frame of a clip is seen: whole, as one square.

    Reference:
      `SmolVLMVideoProcessor.resize` of `transformers` 5.23.
    """
    return squashed_view(item, size, rule, through=(longest_size(size, rule.frame_longest),))


def split_texts(views: Sequence[View], spec: ProcessorSpec) -> Iterator[tuple[str, str]]:
    """Yields what stands before and behind the visual tokens of each view of one picture.

    Raises:
      PromptError: the views are neither the whole alone nor all squares and then the whole.
    """
    rule, template = spec.split, spec.template
    assert rule is not None
    _check(views, rule)
    for view in views[:-1]:
        assert view.window is not None
        row, column = (corner // rule.side + 1 for corner in view.window[:2])
        ends = rule.row_end if column == 1 and row > 1 else ""
        yield ends + rule.tile_open.format(row=row, column=column), ""
    ends = rule.row_end + rule.tiles_end if len(views) > 1 else ""
    yield ends + template.image_open, template.image_close


def _check(views: Sequence[View], rule: SplitRule) -> None:
    *tiles, whole = views
    outer = tiles[0].size if tiles else Size(rule.side, rule.side)
    expected = [
        (top, left)
        for top in range(0, outer.height, rule.side)
        for left in range(0, outer.width, rule.side)
    ]
    shown = (rule.shown, rule.shown)
    corners = [view.window and tuple(view.window[:2]) for view in tiles]
    if (
        whole.tile is not None
        or any(view.encoded_size != shown for view in views)
        or any(view.size != outer or view.tile is None for view in tiles)
        or (tiles and corners != expected)
    ):
        raise PromptError(
            f"assemble: the {len(views)} views of picture {whole.item} are neither the whole at "
            f"{rule.shown} x {rule.shown} px nor all its squares and then the whole, as the model "
            "takes them. Use the policy split."
        )
    rows, columns = outer.height // rule.side, outer.width // rule.side
    if max(rows, columns) > rule.most:
        raise PromptError(
            f"assemble: picture {whole.item} is cut into {rows} x {columns} squares, but the "
            f"vocabulary numbers at most {rule.most} rows and columns. Use "
            f"split:{rule.most * rule.side}."
        )


def _even(side: int) -> int:
    return side + side % 2


def _up(extent: int, side: int) -> int:
    return math.ceil(extent / side) * side

"""Pictures cut into tiles, for models that were trained on tiles and for those that were not."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from mres_jax.data.spec import ProcessorSpec, SplitRule, TileRule
from mres_jax.data.tiles import best_canvas, tile_views
from mres_jax.errors import PolicyError
from mres_jax.geometry import Box, Extent, Size, View
from mres_jax.resolution.policy import Policy, stills
from mres_jax.resolution.split import fewest_squares
from mres_jax.resolution.uniform import fitted, whole_view

SIDE, MOST = 336, 4  # of a model without tiles of its own: pixels, tiles


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tiles(Policy):
    """Every picture as a whole and in tiles, `tiles` or `tiles:336,max=4`.

    A model that was trained on tiles takes them as it was: the canvases that it knows, the picture
    resized into the best of them and padded, the rows of all tiles put together. `max` leaves out
    canvases of more tiles. SmolVLM takes its numbered squares, see `Split`; with `max` the longer
    side becomes fewer of them, until the picture is cut into no more.

    Any other model gets separate pictures, in this order: the whole picture, then its tiles by row.
    Rows and columns are those of at most `max` tiles that show most of the picture's pixels. Each
    tile is a crop of the original, so that nothing is padded; tile and whole keep their ratio at no
    more than `side**2` pixels and are not enlarged. Each has the frame and the positions of a
    picture of its own, and no separator but these. A picture that one tile shows best is not cut.

    Reference:
      Liu et al., 2024, "LLaVA-NeXT" (AnyRes), https://llava-vl.github.io/blog/2024-01-30-llava-next.
    """

    name: ClassVar[str] = "tiles"
    example: ClassVar[str] = "tiles:336,max=4"
    value: ClassVar[str] = "side"
    side: int | None = None  # of a tile, pixels
    max: int | None = None  # tiles of a picture, the whole not counted

    def __post_init__(self):
        for field in ("side", "max"):
            number = getattr(self, field)
            if number is not None and number < 1:
                raise PolicyError(f"policy tiles: {field}={number} must be at least 1.")

    def check(self, spec: ProcessorSpec) -> None:
        """Raises `PolicyError` if the model takes no tiles, or not such tiles."""
        if "tile" not in spec.accepts:
            raise PolicyError(
                f"policy {self}: the model takes {', '.join(sorted(spec.accepts))}, not tiles. Use "
                f"{spec.default_policy}."
            )
        if spec.tiles is not None:
            self._check_rule(spec.tiles)
            return
        if spec.split is not None:
            self._check_side(spec.split)
            return
        super().check(spec)
        side = self.side or SIDE
        if side % spec.stride and self.side:
            near = max(1, round(side / spec.stride)) * spec.stride
            raise PolicyError(
                f"policy {self}: {side} px is not a multiple of the {spec.stride} px of a visual "
                f"token. Use tiles:{near}."
            )
        if side**2 > spec.max_pixels:
            raise PolicyError(
                f"policy {self}: tiles of {side} x {side} px are more than the model's max_pixels="
                f"{spec.max_pixels}."
            )

    def __call__(self, sizes: Sequence[Extent], question: str, spec: ProcessorSpec) -> list[View]:
        """Returns the whole and the tiles of each picture."""
        self.check(spec)
        return [
            view
            for i, size in enumerate(stills(self, sizes))
            for view in self._views(i, size, spec)
        ]

    def _views(self, item: int, size: Size, spec: ProcessorSpec) -> list[View]:
        if spec.tiles is not None:
            canvas = best_canvas(size, self._canvases(spec.tiles))
            return tile_views(item, size, canvas, side=spec.tiles.side)
        if spec.split is not None:
            return fewest_squares(item, size, spec.split, self.max)
        side, most = self.side or SIDE, self.max or MOST
        grids = [(r, c) for r in range(1, most + 1) for c in range(1, most // r + 1)]
        best = best_canvas(size, [Size(side * r, side * c) for r, c in grids])
        rows, columns = best.height // side, best.width // side
        whole = Box(0, 0, *size)
        views = [whole_view(item, size, _fit(whole, side, spec))]
        for number in range(rows * columns if rows * columns > 1 else 0):
            crop = _cell(size, rows, columns, *divmod(number, columns))
            size_px = _fit(crop, side, spec)
            views.append(View(item=item, crop=crop, size=size_px, group=item, tile=number))
        return views

    def _canvases(self, rule: TileRule) -> list[Size]:
        if self.max is None:
            return list(rule.canvases)
        return [canvas for canvas in rule.canvases if canvas.area <= self.max * rule.side**2]

    def _check_side(self, rule: TileRule | SplitRule) -> None:
        if self.side not in (None, rule.side):
            raise PolicyError(
                f"policy {self}: the model's tiles have {rule.side} px. Use tiles:{rule.side}."
            )

    def _check_rule(self, rule: TileRule) -> None:
        self._check_side(rule)
        if not self._canvases(rule):
            fewest = min(canvas.area for canvas in rule.canvases) // rule.side**2
            raise PolicyError(
                f"policy {self}: the model knows no canvas of so few tiles. Use max={fewest}."
            )


def _cell(size: Size, rows: int, columns: int, row: int, column: int) -> Box:
    """One of `rows` x `columns` parts of a picture, which touch and do not overlap."""
    tops = [round(i * size.height / rows) for i in (row, row + 1)]
    lefts = [round(i * size.width / columns) for i in (column, column + 1)]
    return Box(tops[0], lefts[0], tops[1], lefts[1])


def _fit(crop: Box, side: int, spec: ProcessorSpec) -> Size:
    pixels = side**2
    return fitted(
        crop.size,
        spec,
        min_pixels=min(spec.min_pixels, pixels),
        max_pixels=pixels,
    )

"""What views cost, in visual tokens, and how that compares with native resolution."""

from collections.abc import Sequence

from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.splits import split_views
from mres_jax.data.tiles import best_canvas, tile_layout, tile_views
from mres_jax.geometry import ClipSize, Extent, View
from mres_jax.resolution.uniform import native_size, whole_view


def visual_tokens(views: Sequence[View], spec: ProcessorSpec) -> int:
    """Returns the visual tokens of all views, the ends of rows included where tiles have some."""
    if spec.tiles is None:
        return sum(spec.num_visual_tokens(spec.grid(view.encoded_size)) for view in views)
    items = {view.item: [v for v in views if v.item == view.item] for view in views}
    return sum(len(tile_layout(some, spec)) for some in items.values())


def native_visual_tokens(sizes: Sequence[Extent], spec: ProcessorSpec) -> int:
    """Returns the visual tokens of the same pictures and clips at native resolution.

    For a model that takes one size only that is its size; for one that takes tiles, the tiles that
    it was trained to read the picture in. Of a clip all its frames count, so that leaving some out
    lowers its retention.
    """
    return sum(_native_tokens(size, spec) for size in sizes)


def _native_tokens(size: Extent, spec: ProcessorSpec) -> int:
    if isinstance(size, ClipSize):
        grid = spec.grid(native_size(size, spec))
        return spec.num_views(size) * spec.num_visual_tokens(grid)
    if spec.split is not None:
        return visual_tokens(split_views(0, size, spec.split, longest=spec.split.longest), spec)
    if spec.tiles is None:
        return visual_tokens([whole_view(0, size, native_size(size, spec))], spec)
    canvas = best_canvas(size, spec.tiles.canvases)
    return visual_tokens(tile_views(0, size, canvas, side=spec.tiles.side), spec)


def retention_ratio(views: Sequence[View], sizes: Sequence[Extent], spec: ProcessorSpec) -> float:
    """Returns visual tokens spent / visual tokens at native resolution.

    At least 0; 1 is native; above 1 when enlarged. Without pictures it is 1: nothing was left out.
    """
    native = native_visual_tokens(sizes, spec)
    return visual_tokens(views, spec) / native if native else 1.0

"""What views cost, in visual tokens, and how that compares with native resolution."""

from collections.abc import Sequence

from mres_jax.data.spec import ProcessorSpec
from mres_jax.geometry import ClipSize, Extent, View
from mres_jax.resolution.uniform import native_size


def visual_tokens(views: Sequence[View], spec: ProcessorSpec) -> int:
    """Returns the visual tokens of all views."""
    return sum(spec.num_visual_tokens(view.grid(spec.patch_size)) for view in views)


def native_visual_tokens(sizes: Sequence[Extent], spec: ProcessorSpec) -> int:
    """Returns the visual tokens of the same pictures and clips at native resolution.

    Of a clip all its frames count, so that leaving some out lowers its retention.
    """
    counts = [spec.num_views(size) if isinstance(size, ClipSize) else 1 for size in sizes]
    areas = [native_size(size, spec).area for size in sizes]
    return sum(n * area for n, area in zip(counts, areas, strict=True)) // spec.stride**2


def retention_ratio(views: Sequence[View], sizes: Sequence[Extent], spec: ProcessorSpec) -> float:
    """Returns visual tokens spent / visual tokens at native resolution.

    At least 0; 1 is native; above 1 when enlarged. Without pictures it is 1: nothing was left out.
    """
    native = native_visual_tokens(sizes, spec)
    return visual_tokens(views, spec) / native if native else 1.0

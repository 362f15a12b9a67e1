"""Seven area bins and five ratio bins: the 35 cells of a map like RC-Bench's.

RC-Bench (arXiv:2506.12776) bins pictures by area and by width / height. Its unit is 384^2 px; ours
is 128^2 px, so that the whole map can be drawn, trained on and answered in minutes on a CPU.
"""

import math
import random

from mres_jax.errors import MresError
from mres_jax.geometry import Size

AREA_BINS: dict[str, tuple[int, int]] = {  # side of the square of the same area, px; half-open
    "A": (24, 32),
    "B": (32, 128),
    "C": (128, 256),
    "D": (256, 384),
    "E": (384, 512),
    "F": (512, 640),
    "G": (640, 768),  # 768 included
}
RATIO_BINS: dict[str, tuple[float, float]] = {  # width / height
    "BH": (1 / 8, 1 / 4),
    "AH": (1 / 4, 1 / 2),
    "NM": (1 / 2, 2),
    "AW": (2, 4),
    "BW": (4, 8),
}
BINS: tuple[tuple[str, str], ...] = tuple((a, r) for a in AREA_BINS for r in RATIO_BINS)
MIN_SIDE = 11  # px: capitals of 8 px and a margin


def area_bin_of(size: Size) -> str:
    """Returns the area bin of a picture; raises `MresError` outside 24^2..768^2 px."""
    for name, (low, high) in AREA_BINS.items():
        if low**2 <= size.area < high**2 or (name == "G" and size.area == high**2):
            return name
    raise MresError(
        f"bin_of: {size.width} x {size.height} px is an area of {size.area}, outside the bins' "
        f"{24**2}..{768**2}. Resize the picture or leave it out of the map."
    )


def ratio_bin_of(size: Size) -> str:
    """Returns the ratio bin of a picture; 1/2 and 2 are NM, 1/4 is AH and 4 is AW."""
    ratio = size.width / size.height
    if ratio < 1 / 2:
        return "BH" if ratio < 1 / 4 else "AH"
    if ratio <= 2:
        return "NM"
    return "AW" if ratio <= 4 else "BW"


def bin_of(size: Size) -> tuple[str, str]:
    """Returns `(area bin, ratio bin)` of a picture.

    Example:
      >>> bin_of(Size(300, 300)), bin_of(Size(100, 30)), bin_of(Size(768, 768))
      (('D', 'NM'), ('B', 'AH'), ('G', 'NM'))
    """
    return area_bin_of(size), ratio_bin_of(size)


def draw_size(rng: random.Random, area_bin: str, ratio_bin: str) -> Size:
    """Draws a size in one cell: side uniform, ratio log-uniform, short side >= 11 px."""
    for name, known in ((area_bin, AREA_BINS), (ratio_bin, RATIO_BINS)):
        if name not in known:
            raise MresError(f"documents: no bin {name!r}; have {', '.join(known)}.")
    low, high = AREA_BINS[area_bin]
    log_low, log_high = (math.log(x) for x in RATIO_BINS[ratio_bin])
    while True:  # every cell accepts at least 1 draw in 10
        side = rng.uniform(low, high)
        ratio = math.exp(rng.uniform(log_low, log_high))
        size = Size(round(side / math.sqrt(ratio)), round(side * math.sqrt(ratio)))
        in_area = low**2 <= size.area < high**2
        if in_area and min(size) >= MIN_SIDE and ratio_bin_of(size) == ratio_bin:
            return size

"""Where the 35 cells of RC-Bench begin and end: seven bins of area, five of width / height."""

import bisect
import dataclasses
import itertools
import math

from mres_jax.errors import ConfigError
from mres_jax.geometry import Size

AREAS = ("A", "B", "C", "D", "E", "F", "G")  # small to large
RATIOS = ("BH", "AH", "NM", "AW", "BW")  # high to wide
CELLS = tuple((area, ratio) for area in AREAS for ratio in RATIOS)
PAPER_UNIT, SMALL_UNIT = 384, 128  # px
_SIDES = (1 / 4, 1, 2, 3, 4, 5)  # of the squares between area bins, in units
_RATIO_CUTS = (1 / 4, 1 / 2, 2.0, 4.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cuts:
    """The cuts between bins.

    An area on a cut is in the larger bin; a ratio on a cut is in the bin nearer to the square.

    The paper says "seven ranges based on 384 x 384" and no more. The defaults are what the pictures
    on its page and the known areas of its sources allow: between C and D 768^2, D and E 1152^2,
    F and G 1920^2 are well supported; between A and B anything from 96^2 to 192^2 fits, and
    1536^2 between E and F is the pattern alone.

    Attributes:
      areas: six, rising, px.
      ratios: four, rising, width / height.

    Reference:
      Niu et al., 2025, arXiv:2506.12776; examples and maps of its project page.
    """

    areas: tuple[float, ...] = tuple(float((side * PAPER_UNIT) ** 2) for side in _SIDES)
    ratios: tuple[float, ...] = _RATIO_CUTS

    def __post_init__(self):
        for name, cuts, count in (("areas", self.areas, 6), ("ratios", self.ratios, 4)):
            rising = all(a < b for a, b in itertools.pairwise(cuts))
            finite = all(math.isfinite(cut) and cut > 0 for cut in cuts)
            if len(cuts) != count or not rising or not finite:
                given = ", ".join(f"{cut:g}" for cut in cuts)
                raise ConfigError(f"Cuts: {name} must be {count} rising numbers; got {given}.")

    @classmethod
    def of_unit(cls, unit: float) -> "Cuts":
        """Returns the cuts at 1/4, 1, 2, 3, 4 and 5 times a side, px; 384 is the paper's."""
        return cls(areas=tuple(float((side * unit) ** 2) for side in _SIDES))

    def cell(self, size: Size) -> tuple[str, str]:
        """Returns the area bin and the ratio bin of a picture.

        Example:
          >>> Cuts().cell(Size(384, 384)), Cuts().cell(Size(400, 100)), Cuts().cell(Size(401, 100))
          (('C', 'NM'), ('B', 'AH'), ('B', 'BH'))
        """
        area = bisect.bisect_right(self.areas, size.area)
        ratio = size.width / size.height
        high, wide = self.ratios[:2], self.ratios[2:]
        return AREAS[area], RATIOS[
            bisect.bisect_right(high, ratio) + bisect.bisect_left(wide, ratio)
        ]

    def area_range(self, area: str) -> tuple[float, float]:
        """Returns the areas of a bin, px; the first is closed by 0, the last by infinity."""
        edges = (0.0, *self.areas, math.inf)
        return edges[AREAS.index(area)], edges[AREAS.index(area) + 1]

    def ratio_range(self, ratio: str) -> tuple[float, float]:
        """Returns the ratios of a bin; the first is closed by 0, the last by infinity."""
        edges = (0.0, *self.ratios, math.inf)
        return edges[RATIOS.index(ratio)], edges[RATIOS.index(ratio) + 1]

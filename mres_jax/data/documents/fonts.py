"""Glyph masks of the DejaVu fonts that come with matplotlib, cached as numpy arrays.

Every character is drawn at a whole pixel, so one character of one face always has the same mask:
its box is known exactly, and a picture costs a few copies instead of a text engine.
"""

import functools
import importlib.util
import pathlib
from typing import NamedTuple

import numpy as np
from PIL import ImageFont

from mres_jax.errors import MresError

FAMILIES = {"mono": "DejaVuSansMono", "sans": "DejaVuSans", "serif": "DejaVuSerif"}
FONT_SIZES = {
    8: 11,
    9: 12,
    10: 14,
    11: 15,
    12: 16,
    13: 18,
    14: 19,
    15: 21,
    16: 22,
}  # by capital, px


class Glyph(NamedTuple):
    """One character of one face.

    Attributes:
      mask: `uint8 [h w]`, ink; empty for a space.
      left, top: corner of the mask from the pen on the baseline, px.
      advance: way to the next pen position, px.
    """

    mask: np.ndarray
    left: int
    top: int
    advance: int


@functools.cache
def font_folder() -> pathlib.Path:
    """Returns matplotlib's font folder, without importing matplotlib."""
    spec = importlib.util.find_spec("matplotlib")
    places = [pathlib.Path(p) for p in (spec.submodule_search_locations or ())] if spec else []
    for place in places:
        if (folder := place / "mpl-data" / "fonts" / "ttf").is_dir():
            return folder
    raise MresError("documents: no DejaVu fonts found; install matplotlib, which carries them.")


class GlyphCache(dict[str, Glyph]):
    """Glyphs of one font by character, drawn when first asked for."""

    def __init__(self, font: ImageFont.FreeTypeFont):
        super().__init__()
        self._font = font

    def __missing__(self, character: str) -> Glyph:
        advance = max(1, round(self._font.getlength(character)))
        core, (left, top) = self._font.getmask2(character, mode="L", anchor="ls")
        mask = np.array(core, np.uint8).reshape(core.size[1], core.size[0])
        rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        glyph = Glyph(np.zeros((0, 0), np.uint8), 0, 0, advance)
        if rows.size:
            tight = mask[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
            glyph = Glyph(tight, int(left + cols[0]), int(top + rows[0]), advance)
        self[character] = glyph
        return glyph


class Face:
    """One family, weight and size. Get it from `face`, which caches it.

    Attributes:
      glyphs: the mask of each character.
      size: of the font, px.
      cap_height: height of a capital letter, px.
      ascent, descent: reach of the usual characters above and below the baseline, px.
      line: height of one line of text, px.
    """

    def __init__(self, family: str, bold: bool, font_size: int):
        name = FAMILIES[family] + ("-Bold" if bold else "") + ".ttf"
        font = ImageFont.truetype(
            str(font_folder() / name), font_size, layout_engine=ImageFont.Layout.BASIC
        )
        self.glyphs = GlyphCache(font)
        self.size = font_size
        self.cap_height = -self.glyphs["H"].top
        self.ascent = max(-self.glyphs[c].top for c in "bdhlkH")
        self.descent = max(self.glyphs[c].top + self.glyphs[c].mask.shape[0] for c in "gpyJQ/")
        self.line = self.ascent + self.descent

    def glyph(self, character: str) -> Glyph:
        """Returns the mask of one character."""
        return self.glyphs[character]

    def width(self, text: str) -> int:
        """Way of the pen over a string, px."""
        return sum(self.glyphs[c].advance for c in text)


@functools.cache
def face(family: str, bold: bool, cap_height: int) -> Face:
    """Returns the face whose capitals are `cap_height` px high (8..16; larger for headings)."""
    return Face(family, bold, FONT_SIZES.get(cap_height) or round(cap_height / 0.729))

"""What a generated document is: a picture, what is written where, and what may be asked."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np

from mres_jax.geometry import Box


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What may be drawn. The defaults are the full range; a curriculum narrows them.

    Attributes:
      cap_heights: lowest and highest capital letter, px, drawn evenly; a text that does not fit
        its picture shrinks, never below 8 px.
      max_fields: most key-value pairs of one document.
      max_chars: longest value, characters.
      grounds: allowed backgrounds, see `grounds.GROUNDS`.
      families: allowed fonts with their weights.
      logo: share of the documents with a large logo, where it fits.
    """

    cap_heights: tuple[int, int] = (8, 16)
    max_fields: int = 8
    max_chars: int = 8
    grounds: tuple[str, ...] = ("plain", "striped", "checked", "shaded", "rough", "photo")
    families: Mapping[str, float] = dataclasses.field(
        default_factory=lambda: {"mono": 0.5, "sans": 0.4, "serif": 0.1}
    )
    logo: float = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Field:
    """One key with its value.

    Attributes:
      key: word or words of `KEYS`, lower case; "" for a bare value.
      value: what stands there, characters of `CHARSET`.
      key_box, value_box: tight around the ink, px; `key_box` is None for a bare value.
      text_height: height of a capital letter of the value, px.
    """

    key: str
    value: str
    key_box: Box | None
    value_box: Box
    text_height: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Glyphs:
    """Every character that was drawn, in reading order of its string.

    Attributes:
      codes: `int32 [n]`, Unicode code points.
      boxes: `int32 [n 4]`, ink: top, left, bottom, right, px.
      fields: `int32 [n]`, index into `Document.fields`, -1 for other text.
      parts: `int8 [n]`, 0 key, 1 value, 2 other text.
      indices: `int32 [n]`, place in its string.
    """

    codes: np.ndarray
    boxes: np.ndarray
    fields: np.ndarray
    parts: np.ndarray
    indices: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """One question about one document.

    Attributes:
      type: `rc` needs reading, `sc` does not, `point` asks where.
      scorer: of `mres_jax.scoring`: `exact`, `anls`, `point` (inside the box), `box` (overlap).
      answer: the text to be given; of a `point` question a place in thousandths of the picture's
        width and height: `[x, y]` of the middle of `box` where a point is asked for, `[left, top,
        right, bottom]` where a box is. For one who sees a part, see `questions.place_in`.
      box: what the answer stands in, px of the picture; None where it has no place.
      text_height: capital letter that must be read, px; 0 where none must.
      tags: topic (`rc` keys, `sc` facts) and the bins of the picture.
    """

    id: str
    text: str
    answer: str
    type: Literal["rc", "sc", "point"]
    scorer: Literal["exact", "anls", "point", "box"]
    box: Box | None
    text_height: int
    tags: tuple[str, ...]

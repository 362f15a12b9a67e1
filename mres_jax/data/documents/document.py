"""A document: drawn at once, painted when somebody looks."""

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np

from mres_jax.data.documents.render import Plan, make_glyphs, paint
from mres_jax.data.documents.types import Field, Glyphs, Question
from mres_jax.geometry import Box, Size


@dataclasses.dataclass(frozen=True, kw_only=True)
class Document:
    """A picture with its labels.

    Sizes, fields and questions cost a fraction of the pixels, which are painted when first asked
    for: so a set of documents can be planned without painting any.

    Attributes:
      plan: what is drawn.
      facts: what was drawn: `ground`, `colour`, `columns`, `logo`, `logo side`, `logo colour`.
      logo_box: square of the logo, px; None without one.
    """

    seed: int
    plan: Plan
    kind: str
    area_bin: str
    ratio_bin: str
    fields: tuple[Field, ...]
    questions: tuple[Question, ...]
    facts: Mapping[str, str]
    logo_box: Box | None = None

    @property
    def size(self) -> Size:
        """Extent of the picture, px."""
        return self.plan.size

    @functools.cached_property
    def image(self) -> np.ndarray:
        """The picture, `uint8 [h w 3]`."""
        return paint(self.plan)

    @functools.cached_property
    def glyphs(self) -> Glyphs:
        """Every character that was drawn."""
        return make_glyphs(self.plan)

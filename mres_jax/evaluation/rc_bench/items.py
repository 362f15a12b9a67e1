"""One question of an RC-Bench set about one picture, and how it stands in a file."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from mres_jax.geometry import Box, Size

Metric = Literal["exact", "unit", "anls"]
METRICS: tuple[Metric, ...] = ("exact", "unit", "anls")


class Fit(NamedTuple):
    """What was done to a picture so that it falls into a cell: resized, then padded.

    Attributes:
      original: size before, px.
      content: where the resized picture stands, px of the result.
      size: of the result, px.
    """

    original: Size
    content: Box
    size: Size

    @property
    def scale(self) -> float:
        """Factor per side of the picture itself."""
        return (self.content.size.area / self.original.area) ** 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """One question with its answers.

    Attributes:
      id: unique in the set.
      question: as it is asked.
      answers: any of them is right.
      metric: how an answer is scored: `exact`, `unit` (see `scoring.unit_exact_match`) or `anls`.
      type: `rc` needs reading, `sc` does not; or what the source calls it.
      area_bin, ratio_bin: cell of the picture.
      size: of the picture, px.
      source: what the picture was, before anything was done to it.
      fit: what was done; None for a picture as it came.
      sha256: of the picture's bytes.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    metric: Metric
    type: str
    area_bin: str
    ratio_bin: str
    size: Size
    source: str
    fit: Fit | None
    sha256: str

    @property
    def cell(self) -> tuple[str, str]:
        """Area bin and ratio bin."""
        return self.area_bin, self.ratio_bin

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain values, for JSON."""
        return dataclasses.asdict(self) | {"fit": self.fit and self.fit._asdict()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Item":
        """Reads what `to_dict` gave; raises KeyError, TypeError or ValueError at anything else."""
        fields = {field.name: content[field.name] for field in dataclasses.fields(cls)}
        fit = fields["fit"]
        if fit is not None:
            fit = Fit(Size(*fit["original"]), Box(*fit["content"]), Size(*fit["size"]))
        texts = {name: _text(fields[name]) for name in ("id", "question", "type", "source")}
        answers = tuple(_text(answer) for answer in fields["answers"])
        if fields["metric"] not in METRICS or not answers:
            raise ValueError(f"metric {fields['metric']!r}, {len(answers)} answers")
        changed = {"answers": answers, "size": Size(*fields["size"]), "fit": fit}
        return cls(**(fields | texts | changed))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a text is a {type(value).__name__}")
    return value

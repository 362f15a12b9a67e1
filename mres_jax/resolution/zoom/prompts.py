"""What the first pass is asked, per family of models, from data files."""

import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping

from mres_jax.coordinates import COORD_FRAMES
from mres_jax.errors import ConfigError, suggest

FOLDER = pathlib.Path(__file__).parent / "prompts"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZoomPrompts:
    """Words around a question.

    Attributes:
      name: of the file.
      find: asks for one place; `{question}` is the user's, `{scale}` how to write coordinates.
      find_many: asks for up to `{count}` places; `find` where a family has none.
      predict: of the second pass; `{question}` and `{scale}` as in `find`.
      scales: words for `{scale}` by coordinate frame.
      bare: pattern whose group is what a question of a benchmark asks for; it is taken out first.
      rewrites: (pattern, replacement): the first pattern that fits all of a question makes it one
        that asks where; tried before `find`.
      coord_frame: how the family writes coordinates, where the answerer does not know.
    """

    name: str
    find: str
    find_many: str | None = None
    predict: str = "{question}"
    scales: Mapping[str, str] = dataclasses.field(default_factory=dict)
    bare: str | None = None
    rewrites: tuple[tuple[str, str], ...] = ()
    coord_frame: str | None = None

    def finding(self, question: str, *, coord_frame: str, count: int = 1) -> str:
        """Returns the question of the first pass."""
        question = self._taken_out(question)
        for pattern, replacement in self.rewrites:
            if match := re.fullmatch(pattern, question.strip()):
                return match.expand(replacement)
        words = self.find_many if count > 1 and self.find_many else self.find
        scale = self.scales.get(coord_frame, "")
        return _filled(words, question=question, scale=scale, count=str(count))

    def predicting(self, question: str, *, coord_frame: str) -> str:
        """Returns the question of the second pass."""
        scale = self.scales.get(coord_frame, "")
        return _filled(self.predict, question=self._taken_out(question), scale=scale)

    def _taken_out(self, question: str) -> str:
        match = self.bare and re.fullmatch(self.bare, question.strip())
        return match[1] if match else question


def is_file_of_prompts(name: str) -> bool:
    """Whether prompts are a file of the user's, and none of `prompts/`."""
    return name.endswith(".json")


def load_prompts(name: str) -> ZoomPrompts:
    """Returns the prompts of a name in `prompts/`, or of a JSON file.

    Raises:
      ConfigError: no such name or file, or one that does not read.
    """
    path = pathlib.Path(name) if is_file_of_prompts(name) else FOLDER / f"{name}.json"
    if not path.is_file():
        have = sorted(file.stem for file in FOLDER.glob("*.json"))
        raise ConfigError(
            f"zoom: no prompts {name!r}{suggest(name, have)}; have {', '.join(have)}, or name a "
            "JSON file."
        )
    try:
        content = json.loads(path.read_text("utf-8"))
        texts = {k: content[k] for k in ("find", "find_many", "predict", "bare") if k in content}
        for field, words in (texts | dict(content.get("scales", {}))).items():
            if not isinstance(words, str):
                raise ValueError(f"{field}: {words!r} is no text")
        content["rewrites"] = tuple((p, r) for p, r in content.get("rewrites", ()))
        prompts = ZoomPrompts(**{"name": path.stem, **content})
        for pattern, replacement in prompts.rewrites:
            re.compile(pattern).sub(replacement, "")
        if prompts.bare is not None and re.compile(prompts.bare).groups != 1:
            raise ValueError("bare needs one group, which is what is asked for")
        if prompts.coord_frame not in (None, *COORD_FRAMES):
            raise ValueError(f"coord_frame: have {', '.join(COORD_FRAMES)}")
    except (ValueError, TypeError, AttributeError, IndexError, re.error) as error:
        raise ConfigError(f"zoom: prompts {path}: {error}.") from None
    if "{question}" not in prompts.find or "{question}" not in prompts.predict:
        raise ConfigError(f"zoom: prompts {path}: find and predict need {{question}} in them.")
    return prompts


def _filled(words: str, **values: str) -> str:
    """The template with its places filled at once, so that a question's own braces stay."""
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), words)

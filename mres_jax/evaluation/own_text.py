"""A text of the user's own on a page of the demo's kind, asked about under every policy.

Each word stands in a field of its own and is asked about on its own, as the documents are made that
`mres-tiny` was taught with.
"""

import pathlib
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.font_manager import get_font

from mres_jax.data.documents import CHARSET, Document, Options, item_seed, make_document
from mres_jax.data.documents.fonts import FAMILIES, face, font_folder
from mres_jax.errors import MresError
from mres_jax.evaluation.asked_pages import ask_warm, draw_page
from mres_jax.evaluation.demo import MIXED, QUESTIONS
from mres_jax.evaluation.pages import Page
from mres_jax.evaluation.plan import make_plan
from mres_jax.evaluation.trials import Trial, draw_questions
from mres_jax.files import write_together
from mres_jax.geometry import Size
from mres_jax.inference.answer import LocalAnswerer
from mres_jax.inference.show import png
from mres_jax.scoring import anls

SIDES = (448, 640, 768)  # px of the page, the first that has room
HEIGHTS = (4, 48)  # px, of capitals
MOST_WORDS = 8
LONGEST = 8  # characters of a value that `mres-tiny` was taught to read
TRIES = 8  # drawings of a page of one size
OWN = 4_000  # distance of the seeds from the user's


class Reading(NamedTuple):
    """What one policy made of a text.

    Attributes:
      policy: its string.
      trials: one per word.
    """

    policy: str
    trials: list[Trial]

    @property
    def text(self) -> str:
        """The words that were read."""
        return " ".join(trial.answer.text for trial in self.trials)

    @property
    def is_right(self) -> bool:
        """Whether every word is."""
        return all(trial.is_right for trial in self.trials)


class OwnResult(NamedTuple):
    """What came of a text.

    Attributes:
      readings: one per policy.
      files: written.
    """

    readings: list[Reading]
    files: list[pathlib.Path]


def check_text(text: str, height: int) -> str:
    """Returns a text with one blank between its words.

    Args:
      text: of the user.
      height: of its capitals, px.

    Raises:
      MresError: nothing to write, too many words, characters that the fonts cannot draw, a height
        out of range.
    """
    text = " ".join(text.split())
    if not text:
        raise MresError("demo: --text is empty; give it something to read.")
    lowest, highest = HEIGHTS
    if not lowest <= height <= highest:
        raise MresError(f"demo: --height {height} px is not within {lowest} to {highest} px.")
    if len(text.split()) > MOST_WORDS:
        raise MresError(f"demo: --text has {len(text.split())} words; give at most {MOST_WORDS}.")
    if not _families(text):
        missing = _missing(text, "sans") or _missing(text, "mono")
        shown = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in missing[:5])
        raise MresError(f"demo: --text: the DejaVu fonts cannot draw {shown}. Leave it out.")
    return text


def _families(text: str) -> dict[str, float]:
    """Fonts that have every character of a text, each as likely."""
    return {family: 1.0 for family in FAMILIES if not _missing(text, family)}


def _missing(text: str, family: str) -> list[str]:
    """Characters that a font lacks or has no ink for; a blank needs none."""
    known = get_font(str(font_folder() / f"{FAMILIES[family]}.ttf")).get_charmap()
    glyphs = face(family, False, 11).glyphs
    return sorted(c for c in set(text) - {" "} if ord(c) not in known or not glyphs[c].mask.size)


def draw_text(text: str, height: int, seed: int) -> Document:
    """Returns a document whose first fields say the words of a text in capitals of a height.

    Args:
      text: checked by `check_text`.
      height: of its capitals, px.
      seed: of all the rest.

    Raises:
      MresError: it does not fit the largest page.
    """
    words = text.split()
    options = Options(
        cap_heights=(height, height),
        grounds=("plain", "striped", "shaded"),
        families=_families(text),
        logo=0.0,
    )
    for side in SIDES:
        for number in range(TRIES):
            document = make_document(
                item_seed(seed, OWN + number),
                size=Size(side, side),
                kind="invoice",
                options=options,
                values=words,
            )
            fields = document.fields[: len(words)]
            is_high = abs(fields[0].text_height - height) <= 1
            if is_high and [field.value for field in fields] == words:
                return document
    raise MresError(
        f"demo: --text of {len(text)} characters with capitals of {height} px does not fit a page "
        f"of {SIDES[-1]} px. Choose a shorter text or a smaller --height."
    )


def outside_of_training(text: str) -> str:
    """Returns why `mres-tiny` may fail at a text whatever its size, or nothing."""
    strange = sorted(set(text) - set(CHARSET) - {" "})
    longest = max(map(len, text.split()))
    reasons = []
    if strange:
        reasons.append(f"values with {', '.join(map(repr, strange))}")
    if longest > LONGEST:
        reasons.append(f"values of {longest} characters")
    return f"never taught {' or '.join(reasons)}" if reasons else ""


def ask_text(
    answerer: LocalAnswerer,
    text: str,
    height: int,
    *,
    out: str | pathlib.Path,
    seed: int = 0,
    model_name: str = "mres-tiny",
) -> OwnResult:
    """Writes a text on a page, asks what it says under every policy, and writes what was seen.

    Args:
      answerer: of a model that reads documents.
      text: to be read.
      height: of its capitals, px.
      out: directory for `own.png` and `own-policies.png`.
      seed: of the rest of the page.
      model_name: for the foot of the picture.

    Raises:
      MresError: a text that cannot be written, or a policy that the model cannot take.
      RunError: the files cannot be written.
    """
    text = check_text(text, height)
    document = draw_text(text, height, seed)
    sizes = [other.size for other, _ in draw_questions(item_seed(seed, OWN), QUESTIONS, bins=MIXED)]
    plan = make_plan(answerer.spec, sizes)
    path = pathlib.Path(out) / "own.png"
    pages = [Page(path, document.image, q) for q in document.questions[: len(text.split())]]
    readings = [
        Reading(policy, [ask_warm(answerer, page, policy) for page in pages])
        for policy in plan.everything
    ]
    trials = [trial for reading in readings for trial in reading.trials]
    files = {
        "own.png": png(document.image),
        "own-policies.png": draw_page(
            pages[-1], trials, plan, stride=answerer.spec.stride, model_name=model_name
        ),
    }
    return OwnResult(readings, write_together(out, files))


def own_rows(readings: Sequence[Reading], text: str) -> tuple[list[str], list[list[str]]]:
    """Returns headers and cells of the table, dearest policies first; costs are means per word."""
    headers = ["policy", "answer", "", "letters right", "capitals, px", "visual tokens"]
    rows = []
    for reading in sorted(readings, key=lambda one: -one.trials[0].answer.cost.visual_tokens):
        trials, costs = reading.trials, [trial.answer.cost for trial in reading.trials]
        saw = bool(trials[0].answer.views)
        rows.append(
            [
                reading.policy,
                reading.text.strip() or "(nothing)",
                "right" if reading.is_right else "WRONG",
                f"{anls(reading.text, [text], threshold=0.0):.2f}",
                f"{trials[0].text_height:.1f}" if saw else "-",
                f"{costs[0].visual_tokens}",
                f"{costs[0].retention_ratio:.2f}" if saw else "0.00",
                f"{statistics.mean(cost.flops for cost in costs) / 1e6:,.0f}",
                f"{statistics.mean(sum(cost.ms.values()) for cost in costs):.0f}",
            ]
        )
    return [*headers, "retention ratio", "MFLOPs", "ms"], rows

"""Multiple choice: the letters that an answer names."""

import re
from collections.abc import Sequence

from mres_jax.scoring import normalize_answer

_SAID = re.compile(r"(?:answer|option|choice)\s*(?:is|:)?\s*\(?([A-Za-z])\)?(?![^\W_])", re.I)
_LIST = re.compile(r"[\s(]*[A-Za-z][\s).]*(?:(?:,|;|and|&|/)[\s(]*[A-Za-z][\s).]*)*", re.I)
_LEAD = re.compile(r"\s*\(?([A-Za-z])[).:]|\s*([A-Z])\s")


def choice_letters(text: str, options: Sequence[str] = ()) -> frozenset[str]:
    """Returns the options that an answer names, as capital letters.

    In this order: the text of an option; nothing but letters (`B`, `(b) and C`); the last `answer
    is B`; a letter in front (`B. a red door`, `B a red door`). Anything else names none.

    Args:
      text: the answer.
      options: texts of the options, in order, with or without their letters; where given, only
        their letters count.

    Example:
      >>> sorted(choice_letters("(b) and C")), sorted(choice_letters("a red door"))
      (['B', 'C'], [])
    """
    known = frozenset(chr(ord("A") + i) for i in range(len(options) or 26))
    texts = [normalize_answer(re.sub(r"^\(?[A-Za-z][).:]\s+", "", option)) for option in options]
    same = [i for i, option in enumerate(texts) if option == normalize_answer(text)]
    if same:
        return frozenset(chr(ord("A") + i) for i in same)
    if _LIST.fullmatch(text):
        letters = re.findall(r"(?<![A-Za-z])[A-Za-z](?![A-Za-z])", text)
    elif said := _SAID.findall(text):
        letters = said[-1:]
    elif lead := _LEAD.match(text):
        letters = [lead[1] or lead[2]]
    else:
        letters = []
    return frozenset(letter.upper() for letter in letters) & known


def choice_match(prediction: str, answer: str, options: Sequence[str] = ()) -> float:
    """Returns 1.0 when an answer names exactly the right options, else 0.0."""
    expected = choice_letters(answer, options)
    return float(bool(expected) and choice_letters(prediction, options) == expected)


def choice_f1(prediction: str, answer: str, options: Sequence[str] = ()) -> float:
    """Returns the F1 of the options named against the right ones.

    Reference:
      The released code of ResAdapt (arXiv:2603.28610) scores multiple choice so, where the paper
      says that the letter must match.
    """
    given, expected = choice_letters(prediction, options), choice_letters(answer, options)
    common = len(given & expected)
    return 2 * common / (len(given) + len(expected)) if common else 0.0

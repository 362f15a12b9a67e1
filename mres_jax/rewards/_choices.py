"""Multiple choice: what the letters that an answer names are worth."""

from collections.abc import Sequence

from mres_jax.scoring import choice_letters


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

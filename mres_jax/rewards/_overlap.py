"""Free text against a reference: words and their order in common."""

import re
from collections import Counter
from collections.abc import Sequence


def rouge_n(prediction: str, answer: str, n: int = 1) -> float:
    """Returns the F1 of runs of `n` words in common, 0 to 1.

    Words are runs of letters and digits in lower case, without stemming.

    Reference:
      Lin, 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", section 2.
    """
    given, expected = _grams(prediction, n), _grams(answer, n)
    common = sum((given & expected).values())
    return _f1(common, sum(given.values()), sum(expected.values()))


def rouge_l(prediction: str, answer: str) -> float:
    """Returns the F1 of the longest common subsequence of words, 0 to 1.

    Reference:
      Lin, 2004, "ROUGE", section 3.1, with recall and precision weighted alike.

    Example:
      >>> rouge_l("the cat sat", "the cat has sat")
      0.8571428571428571
    """
    given, expected = _words(prediction), _words(answer)
    return _f1(_common_length(given, expected), len(given), len(expected))


def rouge_mean(prediction: str, answer: str) -> float:
    """Returns the mean of ROUGE-1, ROUGE-2 and ROUGE-L.

    Reference:
      The released code of ResAdapt (arXiv:2603.28610); its paper says ROUGE-L alone.
    """
    parts = rouge_n(prediction, answer, 1), rouge_n(prediction, answer, 2)
    return (sum(parts) + rouge_l(prediction, answer)) / 3


def word_accuracy(prediction: str, answer: str) -> float:
    """Returns 1 less the word error rate, not below 0: 1.0 when every word is as it should be."""
    given, expected = prediction.split(), answer.split()
    if not expected:
        return float(not given)
    return max(0.0, 1.0 - _edits(given, expected) / len(expected))


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def _grams(text: str, n: int) -> Counter[tuple[str, ...]]:
    words = _words(text)
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _f1(common: int, given: int, expected: int) -> float:
    return 2 * common / (given + expected) if common else 0.0


def _common_length(a: Sequence[str], b: Sequence[str]) -> int:
    row = [0] * (len(b) + 1)
    for word in a:
        diagonal = 0
        for j, other in enumerate(b, start=1):
            best = diagonal + 1 if word == other else max(row[j], row[j - 1])
            diagonal, row[j] = row[j], best
    return row[-1]


def _edits(a: Sequence[str], b: Sequence[str]) -> int:
    row = list(range(len(b) + 1))
    for i, word in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1]

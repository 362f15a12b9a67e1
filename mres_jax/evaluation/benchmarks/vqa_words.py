"""Answers as the VQA challenge compares them: numbers as digits, no articles, no marks.

Reference:
  Antol et al., 2015, arXiv:1505.00468; the steps are those of the challenge's evaluation
  (visualqa.org/evaluation.html) in the order of EvalAI's processor, which TextVQA's scorers use.
"""

import re

_DIGITS = ("none", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_NUMBERS = {word: str(max(0, i - 1)) for i, word in enumerate((*_DIGITS, "ten"))}
_ARTICLES = frozenset(("a", "an", "the"))
_MARKS = ';/[]"{}()=+\\_-><@`!'
_PERIOD = re.compile(r"\.(?!\d)")
_CONTRACTED = """
  ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've
  hasn't haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't
  mightn't've might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't
  she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
  someone'd've someone'll someone's something'd something'd've something'll that's there'd
  there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've
  we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've
  who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll
  y'all'd've you'd you'd've you'll you're you've
""".split()  # noqa: SIM905  # a list of them is hard to read
_BACKWARDS = {"somebody'd": "somebodyd"}  # so in the challenge's list


def _misspelt(word: str) -> list[str]:
    """A contraction with each of its apostrophes left out in turn."""
    return [word[:i] + word[i + 1 :] for i, char in enumerate(word) if char == "'"]


_CONTRACTIONS = {wrong: word for word in _CONTRACTED for wrong in _misspelt(word)} | _BACKWARDS


def normalize_vqa(text: str) -> str:
    """Returns an answer as it is compared.

    Example:
      >>> normalize_vqa("The two dogs, dont-bite!"), normalize_vqa("1,000.50 $")
      ("2 dogs don't bite", '1000.50 $')
    """
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    text = text.strip().replace("\n", " ").replace("\t", " ").strip()
    words = [_NUMBERS.get(word, word) for word in _without_marks(text).lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def _without_marks(text: str) -> str:
    """Marks at the edge of a word go, others become blanks; periods go but in numbers."""
    out = text
    for mark in _MARKS:
        at_edge = f"{mark} " in text or f" {mark}" in text
        out = out.replace(mark, "" if at_edge else " ")
    return _PERIOD.sub("", out)

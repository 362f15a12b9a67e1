"""Rewards of rollouts: what an answer is worth, by the kind of its question.

Paper and released code of ResAdapt differ in several rules; each is a field of `RewardRules`, and
`RewardRules.code()` is the released code with its faults.

Reference:
  Liao et al., 2026, "ResAdapt", arXiv:2603.28610, appendix on rewards; released code
  (Xnhyacinth/ResAdapt, commit 3816930).
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mres_jax.errors import ConfigError, MresError, suggest
from mres_jax.rewards._choices import choice_f1, choice_match
from mres_jax.rewards._numbers import number_closeness, number_match
from mres_jax.rewards._overlap import rouge_l, rouge_mean, word_accuracy
from mres_jax.rewards._spans import Span, best_span_iou, parse_span
from mres_jax.scoring import anls, exact_match

_BLOCK = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL | re.IGNORECASE)
_SHAPE = re.compile(
    r"\s*<think>(?:(?!</?(?:think|answer)>).)*</think>\s*"
    r"<answer>(?:(?!</?(?:think|answer)>).)*\\boxed\{.*?\}(?:(?!</?(?:think|answer)>).)*</answer>\s*",
    re.DOTALL,
)
SEPARATOR = "<>"  # of a grounded answer: its letter, then its span


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardRules:
    """How rewards are counted.

    Attributes:
      choice: `letter`: exactly the right options (paper); `f1`: their F1 (code).
      free_text: `rouge_l` (paper) or `rouge_mean`, of ROUGE-1, -2 and -L (code).
      tolerance: of numbers, absolute or relative.
      format_weight: of the format in the total.
      unbalanced_format: format reward of an answer whose tags do not pair up: 0 (paper), -1 (code).
      success: accuracy above which an answer counts as right.
      grounded_success: what success of a grounded answer is judged by: `both` its letter must be
        right and its overlap above `success`; `sum` as in the released code, where a right letter
        over no right second suffices.
      marked_kinds: whether kinds spelled with `-` or `_` are understood. The released code strips
        both marks first, so that such a kind matches none of its rules and counts as `text`.
    """

    choice: str = "letter"
    free_text: str = "rouge_l"
    tolerance: float = 1e-2
    format_weight: float = 0.2
    unbalanced_format: float = 0.0
    success: float = 0.35
    grounded_success: str = "both"
    marked_kinds: bool = True

    def __post_init__(self):
        choices = {
            "choice": ("letter", "f1"),
            "free_text": ("rouge_l", "rouge_mean"),
            "grounded_success": ("both", "sum"),
        }
        for name, have in choices.items():
            if getattr(self, name) not in have:
                raise ConfigError(
                    f"RewardRules: {name}={getattr(self, name)!r}; have {', '.join(have)}."
                )

    @classmethod
    def code(cls) -> "RewardRules":
        """The released code's rules."""
        return cls(
            choice="f1",
            free_text="rouge_mean",
            unbalanced_format=-1.0,
            grounded_success="sum",
            marked_kinds=False,
        )


class Reward(NamedTuple):
    """What one rollout earned.

    Attributes:
      accuracy: of the answer, 0 to 1; a grounded answer has its letter and its overlap, 0 to 2.
      format: of its form.
      total: both, weighted.
      right: whether it counts as right.
    """

    accuracy: float
    format: float
    total: float
    right: bool


def reward(
    text: str,
    answer: str,
    kind: str,
    *,
    options: Sequence[str] = (),
    rules: RewardRules | None = None,
) -> Reward:
    """Returns what a rollout earned; an answer that does not parse earns 0.

    Args:
      text: what the model wrote, thoughts and tags included.
      answer: the right answer; of grounding `[start, end]` (several may follow one another,
        separated by `;`), of grounded questions `B <> [start, end]`.
      kind: `choice`, `number`, `text`, `anls`, `ocr`, `regression`, `free_text`, `grounding` or
        `grounded`.
      options: texts of a multiple choice.
      rules: how to count; the paper's when None.

    Raises:
      MresError: an unknown kind.
    """
    rules = rules or RewardRules()
    name = kind if rules.marked_kinds else re.sub(r"[-_]", "", kind)
    name = name.replace("-", "_")
    if kind.replace("-", "_") not in _KINDS:
        raise MresError(
            f"reward: no kind of question {kind!r}{suggest(kind, _KINDS)}; have "
            f"{', '.join(_KINDS)}."
        )
    given = final_answer(text)
    parts = _KINDS.get(name, _KINDS["text"])(given, answer, options, rules)
    form = answer_format(text, unbalanced=rules.unbalanced_format)
    accuracy = sum(parts)
    right = accuracy > rules.success
    if len(parts) == 2 and rules.grounded_success == "both":
        right = parts[0] > rules.success and parts[1] > rules.success
    return Reward(accuracy, form, accuracy + rules.format_weight * form, right)


def final_answer(text: str) -> str:
    r"""Returns what an answer comes down to: its last answer block, and its last box inside.

    Without either it is the text behind the last thought. A thought that was cut off before its end
    has nothing behind it.

    Example:
      >>> final_answer(r"<think>B or C</think><answer>It is \boxed{C}</answer>")
      'C'
    """
    blocks = _BLOCK.findall(text)
    content = blocks[-1] if blocks else _THOUGHT.sub("", text)
    boxed = _boxed(content)
    return (content if boxed is None else boxed).strip()


def answer_format(text: str, *, unbalanced: float = 0.0) -> float:
    r"""Returns 1.0 for one think block and then one answer block with `\boxed{}` inside, else 0.0.

    Args:
      text: what the model wrote.
      unbalanced: returned instead where opening and closing tags do not pair up.
    """
    for tag in ("think", "answer"):
        if text.count(f"<{tag}>") != text.count(f"</{tag}>"):
            return unbalanced
    return float(_SHAPE.fullmatch(text) is not None)


def _boxed(text: str) -> str | None:
    r"""Inside of the last `\boxed{...}`, braces within it paired."""
    start = text.rfind(r"\boxed{")
    if start < 0:
        return None
    inside, depth = start + len(r"\boxed{"), 1
    for i in range(inside, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if not depth:
            return text[inside:i]
    return None


Parts = tuple[float, ...]  # an accuracy is their sum
Rule = Callable[[str, str, Sequence[str], RewardRules], Parts]


def _choice(given: str, answer: str, options: Sequence[str], rules: RewardRules) -> Parts:
    score = choice_match if rules.choice == "letter" else choice_f1
    return (score(given, answer, options),)


def _free_text(given: str, answer: str, options: Sequence[str], rules: RewardRules) -> Parts:
    score = rouge_l if rules.free_text == "rouge_l" else rouge_mean
    return (score(given, answer),)


def _grounding(given: str, answer: str, options: Sequence[str], rules: RewardRules) -> Parts:
    return (best_span_iou(given, _spans(answer)),)


def _grounded(given: str, answer: str, options: Sequence[str], rules: RewardRules) -> Parts:
    letter, _, span = given.partition(SEPARATOR)
    right_letter, _, right_span = answer.partition(SEPARATOR)
    overlap = best_span_iou(span, _spans(right_span))
    return (*_choice(letter.strip(), right_letter.strip(), options, rules), overlap)


def _spans(answer: str) -> list[Span]:
    spans = [span for part in answer.split(";") if (span := parse_span(part))]
    if not spans:
        raise MresError(f"reward: the right answer {answer!r} names no span of time.")
    return spans


_KINDS: dict[str, Rule] = {
    "choice": _choice,
    "number": lambda g, a, o, rules: (number_match(g, a, tolerance=rules.tolerance),),
    "text": lambda g, a, o, rules: (exact_match(g, [a]),),
    "anls": lambda g, a, o, rules: (anls(g, [a]),),
    "ocr": lambda g, a, o, rules: (word_accuracy(g, a),),
    "regression": lambda g, a, o, rules: (number_closeness(g, a),),
    "free_text": _free_text,
    "grounding": _grounding,
    "grounded": _grounded,
}

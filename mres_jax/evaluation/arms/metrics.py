"""Rules by name that score one answer, 0 to 1: those of `scoring` and of `rewards`."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from mres_jax import rewards
from mres_jax.data.rows import QuestionRow
from mres_jax.evaluation.benchmarks import rules
from mres_jax.evaluation.benchmarks.shares import only_view
from mres_jax.protocols import Answer
from mres_jax.scoring import anls, choice_letters, grade

Score = Callable[[str, QuestionRow], float]  # the text of an answer, what was asked


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """How answers are scored.

    Attributes:
      says: what is right, for people.
      score: of the text of an answer; None where its views count too, see `scoring.grade`.
      reads: whether the rule can read a right answer of a row.
    """

    says: str
    score: Score | None = None
    reads: Callable[[str, QuestionRow], bool] = lambda answer, row: bool(answer.strip())


def _best(rule: Callable[[str, str], float]) -> Score:
    """The best over all right answers."""
    return lambda text, row: max(rule(text, answer) for answer in row.answers)


def _of_all(rule: Callable[[str, Sequence[str]], float]) -> Score:
    return lambda text, row: rule(text, row.answers)


def _graded(text: str, row: QuestionRow) -> float:
    return grade(row.scorer, text, row.answers, options=row.options)


def _letters(rule: Callable[[str, str, Sequence[str]], float]) -> Score:
    return lambda text, row: max(rule(text, answer, row.options) for answer in row.answers)


def _span(text: str, row: QuestionRow) -> float:
    spans = [span for answer in row.answers if (span := rewards.parse_span(answer))]
    return rewards.best_span_iou(text, spans)


def _is_number(answer: str, row: QuestionRow) -> bool:
    return rewards.parse_number(answer) is not None


def _names_options(answer: str, row: QuestionRow) -> bool:
    return bool(choice_letters(answer, row.options))


METRICS: Mapping[str, Metric] = {
    "exact": Metric(says="the answer, but for case and white space", score=_graded),
    "unit": Metric(says="the same amount, however it is written", score=_graded),
    "anls": Metric(
        says="similarity of letters, 0 below a half",
        score=lambda text, row: anls(text, row.answers),
    ),
    "choice": Metric(
        says="the letter or the text of the right option",
        score=_graded,
        reads=_names_options,
    ),
    "choices": Metric(
        says="the letters of exactly the right options",
        score=_letters(rewards.choice_match),
        reads=_names_options,
    ),
    "choice_f1": Metric(
        says="F1 of the options named",
        score=_letters(rewards.choice_f1),
        reads=_names_options,
    ),
    "number": Metric(
        says="the number within 1 %", score=_best(rewards.number_match), reads=_is_number
    ),
    "closeness": Metric(
        says="1 less the relative error", score=_best(rewards.number_closeness), reads=_is_number
    ),
    "rouge_l": Metric(says="ROUGE-L, F1", score=_best(rewards.rouge_l)),
    "rouge": Metric(says="mean of ROUGE-1, -2 and -L", score=_best(rewards.rouge_mean)),
    "words": Metric(says="1 less the word error rate", score=_best(rewards.word_accuracy)),
    "span_iou": Metric(
        says="overlap of spans of time",
        score=_span,
        reads=lambda answer, row: rewards.parse_span(answer) is not None,
    ),
    "relaxed": Metric(
        says="the number within 5 %, else the text but for case", score=_best(rules.relaxed_match)
    ),
    "vqa": Metric(
        says="a third of a point for each person who says so",
        score=_of_all(rules.vqa_accuracy),
        reads=lambda answer, row: len(row.answers) > rules.AGREEING,
    ),
    "contains": Metric(
        says="a right answer stands in it, but for case", score=_of_all(rules.contains_answer)
    ),
    "formula": Metric(
        says="a right formula stands in it, but for white space",
        score=_of_all(rules.contains_formula),
    ),
    "point": Metric(says="a point inside the box"),
    "box": Metric(says="a box that overlaps by half"),
}


def grade_row(row: QuestionRow, answer: Answer) -> float:
    """Returns the score of an answer by the metric that a row names, 0 to 1.

    Raises:
      MresError: a place where the model looked at no view, or at several.
    """
    score = METRICS[row.scorer].score
    if score is not None:
        return score(answer.text.strip(), row)
    only_view(row, answer, metric=row.scorer)
    return row.grade(answer)

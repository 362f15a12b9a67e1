"""What the answers to many questions say, in numbers small enough to be kept and drawn again."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mres_jax.errors import MresError
from mres_jax.evaluation.chance import guess_shares
from mres_jax.evaluation.legibility import (
    Comparison,
    HeightCount,
    compare,
    count_heights,
    legibility_limit,
)
from mres_jax.evaluation.plan import Plan
from mres_jax.evaluation.trials import Tally, Trial, tally
from mres_jax.scoring import Interval

COMPARISONS = ("overall", "below", "legible", "enlarged")


class Cell(NamedTuple):
    """Questions of one type, under one policy, about pictures of one cell of size."""

    policy: str
    type: str
    area_bin: str
    ratio_bin: str
    num_questions: int
    num_right: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """What came of asking many questions under every policy of a plan.

    Attributes:
      made: how, as text by name: model, its fingerprint, seed, date, device.
      num_questions: asked under each policy.
      plan: the policies.
      tallies: one per policy.
      cells: counts by policy, type and cell.
      heights: `rc` questions by height of text, under the policies that only shrink.
      limit: height from which on half of the values are read, px.
      chance: of the best constant answers, by type.
      overall, below, legible, enlarged: `rc`, native against fixed: all questions; those whose text
        is below `limit` in the view of fixed; the others, where fixed spends no more than native;
        the others, where it spends more.
    """

    made: Mapping[str, str]
    num_questions: int
    plan: Plan
    tallies: tuple[Tally, ...]
    cells: tuple[Cell, ...]
    heights: tuple[HeightCount, ...]
    limit: float
    chance: Mapping[str, float]
    overall: Comparison
    below: Comparison
    legible: Comparison
    enlarged: Comparison

    def of(self, policy: str) -> Tally:
        """The tally of one policy."""
        return next(row for row in self.tallies if row.policy == policy)

    def num_of(self, kind: str) -> int:
        """Questions of one type, asked under each policy."""
        of_native = [c for c in self.cells if c.policy == self.plan.native and c.type == kind]
        return sum(cell.num_questions for cell in of_native)


def summarize(
    trials: Sequence[Trial],
    plan: Plan,
    *,
    seed: int,
    made: Mapping[str, str],
    ms: Mapping[str, float],
) -> Summary:
    """Counts the trials of a plan.

    Args:
      trials: every question under every policy.
      plan: the policies.
      seed: from which chance is measured, on documents of its own.
      made: how the trials were made, to be kept with the numbers.
      ms: per question by policy.
    """
    by_policy: dict[str, list[Trial]] = {}
    for trial in trials:
        by_policy.setdefault(trial.policy, []).append(trial)
    heights = count_heights([t for policy in plan.shrinking for t in by_policy[policy]])
    limit = legibility_limit(heights)
    native, fixed = by_policy[plan.native], by_policy[plan.fixed]
    return Summary(
        made=made,
        num_questions=len(native),
        plan=plan,
        tallies=tuple(tally(trials, ms)),
        cells=tuple(count_cells(trials)),
        heights=tuple(heights),
        limit=limit,
        chance=guess_shares(seed),
        overall=compare(native, fixed),
        below=_compare_shown(native, fixed, limit, "below"),
        legible=_compare_shown(native, fixed, limit, "legible"),
        enlarged=_compare_shown(native, fixed, limit, "enlarged"),
    )


def _compare_shown(
    native: Sequence[Trial], fixed: Sequence[Trial], limit: float, name: str
) -> Comparison:
    """Compares on the questions that fixed shows in one way: `below`, `legible` or `enlarged`."""

    def shows(first: Trial, second: Trial) -> str:
        if second.text_height < limit:
            return "below"
        spent = second.answer.cost.visual_tokens, first.answer.cost.visual_tokens
        return "enlarged" if spent[0] > spent[1] else "legible"

    return compare(native, fixed, keep=lambda first, second: shows(first, second) == name)


def count_cells(trials: Sequence[Trial]) -> list[Cell]:
    """Counts trials by policy, type, area bin and ratio bin."""
    counts: dict[tuple[str, str, str, str], list[bool]] = {}
    for trial in trials:
        area_bin, ratio_bin = trial.question.tags[-2:]
        key = (trial.policy, trial.question.type, area_bin, ratio_bin)
        counts.setdefault(key, []).append(trial.is_right)
    return [Cell(*key, len(right), sum(right)) for key, right in counts.items()]


def to_json(summary: Summary) -> dict[str, Any]:
    """Returns a summary as plain lists and numbers; what is no finite number becomes None."""
    content = dataclasses.asdict(summary) | {
        "plan": summary.plan._asdict(),
        "tallies": tallies_to_json(summary.tallies),
    }
    for name in COMPARISONS:
        content[name] = getattr(summary, name)._asdict()
    return _plain(content)


def tallies_to_json(tallies: Sequence[Tally]) -> list[dict[str, Any]]:
    """Returns tallies as plain lists and numbers; what is no finite number becomes None."""
    accuracies = ({kind: list(share) for kind, share in row.accuracy.items()} for row in tallies)
    return [
        _plain(row._asdict() | {"accuracy": accuracy})
        for row, accuracy in zip(tallies, accuracies, strict=True)
    ]


def _plain(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def from_json(content: Mapping[str, Any], *, source: str) -> Summary:
    """Reads what `to_json` made.

    Args:
      content: of the file.
      source: its name, for errors.

    Raises:
      MresError: it is not a summary.
    """
    try:
        return _from_json(content)
    except (KeyError, TypeError, ValueError) as error:
        raise MresError(f"{source}: is no summary of answers ({error}). Make it anew.") from None


def _from_json(content: Mapping[str, Any]) -> Summary:
    plan, limit = content["plan"], content["limit"]
    return Summary(
        made=content["made"],
        num_questions=content["num_questions"],
        plan=Plan(**(plan | {"curve": tuple(plan["curve"])})),
        tallies=tuple(
            Tally(**(row | {"accuracy": {k: _interval(x) for k, x in row["accuracy"].items()}}))
            for row in content["tallies"]
        ),
        cells=tuple(Cell(*cell) for cell in content["cells"]),
        heights=tuple(HeightCount(*count) for count in content["heights"]),
        limit=math.inf if limit is None else limit,
        chance=content["chance"],
        **{name: _comparison(content[name]) for name in COMPARISONS},
    )


def _comparison(content: Mapping[str, Any]) -> Comparison:
    first, second = (math.nan if content[x] is None else content[x] for x in ("first", "second"))
    return Comparison(content["num_questions"], first, second, _interval(content["difference"]))


def _interval(numbers: Sequence[float | None]) -> Interval:
    return Interval(*(math.nan if number is None else number for number in numbers))

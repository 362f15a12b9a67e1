"""What an answer earns: by the type of its row, by one kind for all, or by a function of yours."""

import functools
import math
import pathlib
from collections.abc import Callable, Sequence

from mres_jax.data.rows import QuestionRow
from mres_jax.errors import BadRowError, ConfigError, MresError, RunError
from mres_jax.protocols import Answer
from mres_jax.rewards import Reward, RewardRules, reward

RewardFunction = Callable[[Answer, QuestionRow], Reward]
BY_TYPE = "type"


def open_reward(name: str, rules: RewardRules | None = None) -> RewardFunction:
    """Returns the rule that answers are paid by.

    Args:
      name: `type`, a kind of `mres_jax.rewards.reward`, or `path.py:function`, which is executed.
        The function gets an `Answer` and its `QuestionRow` and returns a `Reward` or a number: what
        is above `rules.success` counts as right.
      rules: how to count; the paper's when None.

    Raises:
      ConfigError: no such file or function, or a file that fails.
    """
    rules = rules or RewardRules()
    path, is_function, function = name.rpartition(":")
    if is_function:
        return functools.partial(_by_function, _load(path, function), name, rules)
    return functools.partial(_by_kind, None if name == BY_TYPE else name, rules)


def check_payable(rows: Sequence[QuestionRow], name: str, rules: RewardRules | None = None) -> None:
    """Refuses rows that no answer can be paid for in full, before any is asked.

    Each is paid for its own right answer. Only of free text less than all will do: counted by pairs
    of words (`rouge_mean`), one word is not worth 1 to itself.

    Args:
      rows: all of a run.
      name: of the reward; a function is not tried.
      rules: as for `open_reward`.

    Raises:
      BadRowError: the first row whose type is unknown, or whose answer its rule cannot read; it
        says of how many such rows.
    """
    if ":" in name:
        return
    kinds = [row.type if name == BY_TYPE else name for row in rows]
    found = [(row, _fault(row, kind, rules)) for row, kind in zip(rows, kinds, strict=True)]
    refused = [(row, fault) for row, fault in found if fault]
    if refused:
        row, fault = refused[0]
        count = f" ({len(refused):,} of {len(rows):,} rows)" if len(refused) > 1 else ""
        raise BadRowError(row.id, fault.removesuffix(".") + count)


def _fault(row: QuestionRow, kind: str, rules: RewardRules | None) -> str | None:
    """Why no answer to a row can earn all that there is to earn; None where one can."""
    try:
        earned = reward(row.answer, row.answer, kind, options=row.options, rules=rules).accuracy
    except MresError as error:
        return str(error)
    full = 2.0 if kind == "grounded" else 1.0
    is_paid = earned > 0 if kind in ("free_text", "free-text") else math.isclose(earned, full)
    if is_paid:
        return None
    options = f" of the options {list(row.options)}" if row.options else ""
    return (
        f"its own answer {row.answer!r}{options} earns {earned:g} of {full:g} as {kind}, and no "
        "other could earn more: correct answer, options or type"
    )


def _by_kind(kind: str | None, rules: RewardRules, answer: Answer, row: QuestionRow) -> Reward:
    return reward(answer.text, row.answer, kind or row.type, options=row.options, rules=rules)


def _by_function(
    function: Callable, name: str, rules: RewardRules, answer: Answer, row: QuestionRow
) -> Reward:
    earned = function(answer, row)
    if isinstance(earned, Reward):
        return earned
    if isinstance(earned, bool) or not isinstance(earned, int | float):
        raise RunError(
            f"reward {name}: gave a {type(earned).__name__} for row {row.id!r}; return a number or "
            "a mres_jax.rewards.Reward."
        )
    value = float(earned)
    return Reward(value, 0.0, value, math.isfinite(value) and value > rules.success)


def _load(path: str, function: str) -> Callable:
    file = pathlib.Path(path)
    if not file.is_file():
        raise ConfigError(f"reward {path}:{function}: no such file.")
    names = {"__name__": "mres_reward", "__file__": path}
    try:
        exec(compile(file.read_text(encoding="utf-8"), path, "exec"), names)
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ConfigError(f"reward {path}: {type(error).__name__}: {reason}") from error
    found = names.get(function)
    if not callable(found):
        raise ConfigError(f"reward {path}: defines no function {function!r}.")
    return found

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
    """Refuses rows that no answer could be paid for, before any is asked.

    Args:
      rows: all of a run.
      name: of the reward; a function is not tried.
      rules: as for `open_reward`.

    Raises:
      BadRowError: the first row whose type is unknown, or whose answer its rule cannot read.
    """
    if ":" in name:
        return
    for row in rows:
        kind = row.type if name == BY_TYPE else name
        try:
            reward("", row.answer, kind, options=row.options, rules=rules)
        except MresError as error:
            raise BadRowError(row.id, str(error)) from None


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

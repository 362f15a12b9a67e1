"""What users see when their input cannot work: one line with the item, the numbers and the cure.

`MresError` is bad usage or bad input (exit code 2 of the command line); `RunError` is a run that
was started correctly and failed (exit code 1). Neither ever carries a memory address.
"""

import difflib
from collections.abc import Iterable


class MresError(ValueError):
    """Bad usage or bad input."""


class BadImageError(MresError):
    """A picture that cannot or must not be decoded; names the file and the reason."""


class BadVideoError(MresError):
    """A clip that cannot or must not be read; names the file and the reason."""


class BadRowError(MresError):
    """A row of a data set that cannot be used.

    Attributes:
      row: id of the row.
      reason: what is wrong with it, in words.
      kind: what such rows are counted under, see `mres_jax.data.rows.BAD_KINDS`.
    """

    def __init__(self, row: str, reason: str, kind: str = "bad picture"):
        super().__init__(row, reason, kind)  # all of it, so that it travels between processes
        self.row, self.reason, self.kind = row, reason, kind

    def __str__(self) -> str:
        return f"row {self.row}: {self.reason.removesuffix('.')}."


class PackingError(MresError):
    """Items that do not fit the static buffers they were meant for; `item` is the first of them."""

    item: int | None = None


class PolicyError(MresError):
    """An unknown resolution policy, or one that a model cannot take."""


class PromptError(MresError):
    """A conversation that cannot become a prompt: placeholders, lengths, empty turns."""


class CheckpointError(MresError):
    """Weights, keys or files of a checkpoint that are missing, unexpected or damaged."""


class ConfigError(MresError):
    """An unknown or impossible field of a configuration."""


class RunError(RuntimeError):
    """A failure while running: a full disk, a dead peer, a step that diverged."""


def suggest(word: str, words: Iterable[str]) -> str:
    """Returns ` (did you mean X?)`, or nothing where no word is near."""
    near = difflib.get_close_matches(word, list(words), n=1)
    return f" (did you mean {near[0]}?)" if near else ""

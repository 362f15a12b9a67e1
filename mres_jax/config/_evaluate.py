"""What a run writes down about itself, and how it is tested while it trains."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, Literal

from mres_jax.config._checks import require
from mres_jax.config._data import Documents, Rows
from mres_jax.config._values import did_you_mean

WRITERS = ("tensorboard", "wandb")  # beside JSON lines, which are always written


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Every so many steps: the loss on packs that are never trained on, and answers to questions.

    Held out are documents of another seed, and the rows that `Rows.held_out` keeps back.
    """

    every_steps: int = 500  # steps between two evaluations; one more at the end
    num_packs: int = 4  # at most, of the held-out loss; 0 leaves it out
    num_questions: int = 32  # at most, answered greedily and scored; 0 leaves them out
    num_samples: int = 4  # of these answers, kept with their pictures
    max_new_tokens: int = 32  # of an answer
    policy: str | None = None  # of the questions; None takes the run's policy of most weight
    best: Literal["loss", "score"] = "loss"  # what the best checkpoint is best in
    data: tuple[Any, ...] = ()  # `Documents` and `Rows` to use all of, in place of those held out

    def __post_init__(self):
        for name, least in (("every_steps", 1), ("max_new_tokens", 1), ("num_samples", 0)):
            value = getattr(self, name)
            require(value >= least, "Evaluate", f"{name}={value} must be at least {least}.")
        counts = (self.num_packs, self.num_questions)
        require(
            min(counts) >= 0 and max(counts) > 0,
            "Evaluate",
            f"num_packs={counts[0]} and num_questions={counts[1]} must not be negative, and one of "
            "them above 0.",
        )
        require(
            self.best in ("loss", "score"), "Evaluate", f"best={self.best!r}; have loss, score."
        )
        needed = {"loss": "num_packs", "score": "num_questions"}[self.best]
        require(
            getattr(self, needed) > 0, "Evaluate", f"best={self.best!r} needs {needed} above 0."
        )
        for part in self.data:
            kind = type(part).__name__
            require(isinstance(part, Documents | Rows), "Evaluate", f"data holds a {kind}.")


def check_metrics(names: Sequence[str]) -> None:
    """Raises `ConfigError` that names a writer which does not exist."""
    for name in names:
        have = f"{did_you_mean(name, WRITERS)} Have {', '.join(WRITERS)}."
        require(name in WRITERS, "Run", f"metrics: unknown writer {name!r}.{have}")


def check_held_out(data: Sequence[Any], evaluate: Evaluate | None) -> None:
    """Raises `ConfigError` where there is nothing to evaluate on, or it is trained on."""
    if evaluate is None:
        return
    has_some = any(isinstance(part, Documents) or part.held_out for part in data)
    require(
        bool(evaluate.data) or has_some,
        "Run",
        "evaluate has no data: set held_out of Rows, or evaluate.data.",
    )
    trained, held = (
        {os.path.abspath(part.path) for part in parts if isinstance(part, Rows)}
        for parts in (data, evaluate.data)
    )
    for path in sorted(trained & held):
        require(
            False,
            "Run",
            f"evaluate.data has {path}, which the run trains on; set held_out of those Rows.",
        )

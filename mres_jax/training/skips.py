"""Steps that changed nothing, because loss or gradient were not finite: named, counted, limited."""

import collections
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from mres_jax.errors import RunError
from mres_jax.training.learner import Metrics

LAG = 2  # steps; reading the metrics of the newest ones would wait for them


class SkipGuard:
    """Names every skipped step in the log, and ends a run that does nothing but skip.

    Args:
      limit: steps skipped in a row that are too many.
      log: takes a line.
      saved: step of the newest checkpoint, 0 where there is none; the run keeps it up to date.
      learner: who learns, where a run has several, each with a guard of its own and any number of
        updates a step: updates are counted then. Empty: one, with an update a step.
      optimizer: field of its step rule.
    """

    def __init__(
        self,
        limit: int,
        log: Callable[[str], None],
        *,
        saved: int = 0,
        learner: str = "",
        optimizer: str = "optimizer",
    ):
        self.limit, self.log, self.saved = limit, log, saved
        self.learner, self.optimizer = learner, optimizer
        self.in_row = 0
        self._waiting: collections.deque[tuple[int, Mapping]] = collections.deque()

    def add(self, step: int, metrics: Mapping) -> None:
        """Looks at the metrics of an update, as `Step` returns them, once later ones are under way.

        Raises:
          RunError: too many in a row were skipped.
        """
        self._waiting.append((step, metrics))
        self._look(LAG)

    def settle(self) -> None:
        """Looks at all that were added so far; `in_row` counts those skipped at their end."""
        self._look(0)

    def _look(self, left: int) -> None:
        while len(self._waiting) > left:
            step, metrics = self._waiting.popleft()
            self.in_row = int(metrics["skipped_in_row"])
            if not self.in_row:
                continue
            found = f"loss {metrics['objective']}, gradient norm {metrics['grad_norm']}"
            what = f": update of the {self.learner}" if self.learner else ""
            self.log(f"step {step:5d}{what} skipped: {found}")
            if self.in_row >= self.limit:
                raise RunError(self._message(step, found))

    def _message(self, step: int, found: str) -> str:
        kept = f"the newest checkpoint is of step {self.saved}" if self.saved else "none was saved"
        last = step - self.in_row
        what = (
            f"the last {self.in_row} updates of the {self.learner} were skipped, up to step {step} "
            f"({found}): {kept}"
            if self.learner
            else f"steps {last + 1} to {step} were skipped ({found}): the last one that changed "
            f"anything is {last}, {kept}"
        )
        return (
            f"train: {what}. Lower {self.optimizer}.learning_rate or look at the data of these "
            "steps; max_skipped is how many are borne in a row."
        )


@jax.jit
def summable(metrics: Metrics) -> Metrics:
    """Metrics of a step that may be added up: zeros where it was skipped, which `skipped` counts.

    Means over several steps are sums divided by the steps that were not skipped.
    """
    is_skipped = metrics["skipped_in_row"] > 0
    shown = {k: v for k, v in metrics.items() if k not in ("skipped_in_row", "objective")}
    zeroed = {name: jnp.where(is_skipped, 0.0, value) for name, value in shown.items()}
    return zeroed | {"skipped": is_skipped.astype(jnp.float32)}

"""SIGTERM and Ctrl-C remembered until the step is done."""

import signal
import sys
from typing import Any

from mres_jax.training import hosts


class Stop:
    """A context in which SIGTERM and SIGINT set `asked` to their name; a second one ends it all.

    Where a run has several processes jax listens instead, and `agree` says when all are to stop.
    """

    def __init__(self):
        self.asked: str | None = None

    def __enter__(self) -> "Stop":
        self.old: dict[int, Any] = {}
        for number in () if hosts.are_several() else (signal.SIGTERM, signal.SIGINT):
            try:
                self.old[number] = signal.signal(number, self._remember)
            except ValueError:  # not the main thread (a notebook, a test): nobody to listen
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)

    def agree(self, step: int) -> None:
        """Asks, after every step, whether one of several processes was told to end."""
        if hosts.is_preempted(step):
            self.asked = "SIGTERM to one of the processes"

    def _remember(self, number: int, _: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = signal.Signals(number).name
        print(f"{self.asked}: saving after this step", file=sys.stderr)

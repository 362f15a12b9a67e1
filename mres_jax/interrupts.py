"""SIGTERM and Ctrl-C remembered until what is under way is done."""

import signal
import sys
from collections.abc import Sequence
from typing import Any, TypeVar

SIGNALS = (signal.SIGTERM, signal.SIGINT)
S = TypeVar("S", bound="Stop")


class Stop:
    """A context in which SIGTERM and SIGINT set `asked` to their name; a second one ends it all.

    Args:
      until: what is done first, for whoever sent the signal.
      signals: that are listened to.
    """

    def __init__(self, until: str, signals: Sequence[signal.Signals] = SIGNALS):
        self.until, self.signals = until, signals
        self.asked: str | None = None

    def __enter__(self: S) -> S:
        self.old: dict[signal.Signals, Any] = {}
        for number in self.signals:
            try:
                self.old[number] = signal.signal(number, self._remember)
            except ValueError:  # not the main thread (a notebook, a test): nobody to listen
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = signal.Signals(number).name
        print(f"{self.asked}: {self.until}", file=sys.stderr)

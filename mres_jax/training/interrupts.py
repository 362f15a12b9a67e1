"""SIGTERM and Ctrl-C remembered until the step is done."""

import signal
import sys
from typing import Any


class Stop:
    """A context in which SIGTERM and SIGINT set `asked` to their name; a second one ends it all."""

    def __init__(self):
        self.asked: str | None = None

    def __enter__(self) -> "Stop":
        self.old: dict[int, Any] = {}
        for number in (signal.SIGTERM, signal.SIGINT):
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
        print(f"{self.asked}: saving after this step", file=sys.stderr)

"""Waiting for a server that answers nobody: said once, ended by its return, by time, by a stop."""

import math
import threading
import time
from collections.abc import Callable

from mres_jax.errors import RunError

SLICE = 0.1  # seconds after which somebody who waits looks up


class ServerGoneError(RunError):
    """A server that did not come back in time, or is waited for no longer."""


class Patience:
    """What all threads that ask one server know of it together.

    Attributes:
      is_over: asked while one waits; where it says so, waiting ends.
      last_sent: when the newest request was sent that has been answered, monotonic seconds.
    """

    def __init__(self, seconds: float, log: Callable[[str], None]):
        """Begins with a server that is there.

        Args:
          seconds: that it may be silent.
          log: takes a line where a silence begins and where it ends.
        """
        self.seconds, self.log = seconds, log
        self.is_over: Callable[[], bool] = lambda: False
        self.last_sent = -math.inf
        self._lock = threading.Lock()
        self._silent_since: float | None = None
        self._is_said = self._is_lost = False

    def answered(self, sent: float) -> None:
        """Notes a reply to what was sent then."""
        with self._lock:
            since, is_said = self._silent_since, self._is_said
            self.last_sent = max(self.last_sent, sent)
            self._silent_since, self._is_said = None, False
        if since is not None and is_said:
            self.log(f"server: it answers again, after {time.monotonic() - since:.0f} s")

    def failed(self, where: str, reason: str, *, say: bool) -> None:
        """Notes a try that failed while nobody was answered.

        Args:
          where: names server and request.
          reason: of the failure.
          say: whether it lasts long enough to be told.

        Raises:
          ServerGoneError: it has lasted too long.
        """
        with self._lock:
            now = time.monotonic()
            self._silent_since = self._silent_since or now
            silent = now - self._silent_since
            self._is_lost |= silent >= self.seconds
            say, self._is_said = say and not self._is_said, self._is_said or say
        if say and not self._is_lost:
            self.log(f"{where}: {reason}; nobody is answered, waiting up to {self.seconds:g} s")
        if self._is_lost:
            raise ServerGoneError(
                f"{where}: {reason}, and nobody was answered for {self.seconds:g} s. Start the "
                "server, and what asked it again: a run goes on from its last save."
            )

    def sleep(self, seconds: float) -> None:
        """Waits.

        Raises:
          ServerGoneError: waiting has ended, for this or another thread.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._is_lost or self.is_over():
                raise ServerGoneError("server: it is waited for no longer.")
            time.sleep(min(left, SLICE))

"""What a server takes upon itself, and the room in which requests wait."""

import dataclasses
import threading
import time

from mres_jax.data.images import MAX_PIXELS
from mres_jax.errors import ConfigError
from mres_jax.serving.errors import BUSY, ApiError

LONGEST_WAIT = 60  # seconds, the most that a client is asked to wait


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on one request and on all together.

    Attributes:
      max_body_bytes: of a request.
      max_pictures: of a request.
      max_pixels: of all pictures of a request as they were sent, px.
      max_waiting: requests in the room, those that are being answered included.
      max_waiting_pixels: of the pictures of all of them, px; 3 bytes each.
      max_answers: `n` of a request.
      new_tokens: of an answer where a request does not say, if the context has room.
    """

    max_body_bytes: int = 32 * 2**20
    max_pictures: int = 64
    max_pixels: int = MAX_PIXELS
    max_waiting: int = 64
    max_waiting_pixels: int = 4 * MAX_PIXELS
    max_answers: int = 16
    new_tokens: int = 512

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise ConfigError(
                    f"serve: {field.name}={getattr(self, field.name)} must be at least 1."
                )
        if self.max_waiting_pixels < self.max_pixels:
            raise ConfigError(
                f"serve: max_waiting_pixels={self.max_waiting_pixels} is below max_pixels="
                f"{self.max_pixels}: the largest request would never be let in."
            )


class Room:
    """Where requests are from their arrival to their answer; it is never fuller than it may be."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.num_requests, self.num_pixels = 0, 0
        self._seconds = 1.0  # that a request stays, a running mean
        self._lock = threading.Lock()

    def enter(self) -> "Place":
        """Returns a place, to be used as a context.

        Raises:
          ApiError: 429, the room is full.
        """
        with self._lock:
            if self.num_requests >= self.limits.max_waiting:
                raise self._full(f"{self.num_requests} requests wait already")
            self.num_requests += 1
        return Place(self)

    def _take(self, pixels: int) -> None:
        with self._lock:
            if self.num_pixels + pixels > self.limits.max_waiting_pixels:
                raise self._full(f"pictures of {self.num_pixels} px wait already")
            self.num_pixels += pixels

    def _leave(self, pixels: int, seconds: float) -> None:
        with self._lock:
            self.num_requests -= 1
            self.num_pixels -= pixels
            self._seconds += 0.2 * (seconds - self._seconds)

    def _full(self, reason: str) -> ApiError:
        wait = max(1, min(LONGEST_WAIT, round(self._seconds)))
        message = f"busy: {reason}. Try again in {wait} s."
        return ApiError(429, message, kind=BUSY, code="queue_full", retry_after=wait)


class Place:
    """One request's place in a `Room`."""

    def __init__(self, room: Room):
        self._room, self._pixels, self._start = room, 0, time.monotonic()

    def take(self, pixels: int) -> None:
        """Makes room for pictures before they are decoded.

        Raises:
          ApiError: 429, the pictures of others fill it.
        """
        self._room._take(pixels)
        self._pixels += pixels

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, *_: object) -> None:
        self._room._leave(self._pixels, time.monotonic() - self._start)

"""Which frames of a video are looked at: whole numbers from the count of frames and their rate."""

import dataclasses
import math
from typing import Literal

import numpy as np

from mres_jax.data.spec import ProcessorSpec
from mres_jax.errors import BadVideoError, ConfigError

MAX_FPS = 1_000.0  # of a video, and of what may be asked of it
MARGIN = 1  # second that `inner` leaves out at either end of a long video


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameSampling:
    """So many frames per second of video, spread evenly, within limits and in whole groups.

    Attributes:
      fps: frames per second of video; no frame is ever taken twice.
      min_frames: at least so many, if the video has them.
      max_frames: at most so many.
      num_frames: exactly so many instead, whatever the video's length.
      multiple: the number of frames is a multiple of this.
      spread: `starts` takes the first frame of equal parts of the video, `ends` goes from its first
        frame to its last; so does `inner`, but of a video much longer than what is looked at it
        leaves out a second at either end.

    Raises:
      ConfigError: numbers that cannot be.

    Reference:
      `sample_frames` of the video processors of Qwen2-VL (`starts`, in groups of two) and Qwen3-VL
      (`ends`, any number) in `transformers` 5.23, and SmolVLM's (`inner`, any number).
    """

    fps: float = 2.0
    min_frames: int = 4
    max_frames: int = 768
    num_frames: int | None = None
    multiple: int = 2
    spread: Literal["starts", "ends", "inner"] = "starts"

    def __post_init__(self):
        if not (math.isfinite(self.fps) and 0 < self.fps <= MAX_FPS):
            raise ConfigError(f"frames: fps={self.fps} must be above 0, and {MAX_FPS:.0f} at most.")
        if not 1 <= self.min_frames <= self.max_frames or self.multiple < 1:
            raise ConfigError(
                f"frames: min_frames={self.min_frames}, max_frames={self.max_frames}, multiple="
                f"{self.multiple} cannot be; all at least 1, min_frames at most max_frames."
            )
        if self.num_frames is not None and (self.num_frames < 1 or self.num_frames % self.multiple):
            raise ConfigError(
                f"frames: num_frames={self.num_frames} is not a multiple of {self.multiple}."
            )

    @classmethod
    def of(
        cls, spec: ProcessorSpec | None, *, fps: float | None = None, max_frames: int | None = None
    ) -> "FrameSampling":
        """The way in which a model looks at clips, or the usual one where it takes none.

        Args:
          spec: of the model.
          fps: instead of the model's.
          max_frames: instead of the model's.
        """
        video = None if spec is None else spec.video
        usual = (
            cls()
            if video is None
            else cls(
                fps=video.fps,
                min_frames=video.min_frames,
                max_frames=video.max_frames,
                multiple=video.multiple,
                spread=video.spread,
            )
        )
        most = usual.max_frames if max_frames is None else max_frames
        return dataclasses.replace(
            usual,
            fps=usual.fps if fps is None else fps,
            max_frames=most,
            min_frames=min(usual.min_frames, most),
        )

    def choose(self, num_frames: int, fps: float, *, name: str) -> np.ndarray:
        """Returns the frames that are looked at, ascending, `int64 [frames]`.

        Args:
          num_frames: of the video.
          fps: of the video, frames per second.
          name: what errors call the video.

        Raises:
          BadVideoError: a rate that cannot be; no frame is left; fewer frames than `num_frames`.

        Example:
          >>> FrameSampling(fps=2).choose(90, 30.0, name="a").tolist()
          [0, 15, 30, 45, 60, 75]
        """
        if not (math.isfinite(fps) and 0 < fps <= MAX_FPS):
            raise BadVideoError(
                f"video {name}: {fps:g} frames per second; more than 0 and at most {MAX_FPS:.0f} "
                "are read."
            )
        count = self._count(num_frames, fps, name)
        if self.spread == "inner":
            return self._inner(count, num_frames, fps)
        if self.spread == "ends":
            return np.linspace(0, num_frames - 1, count).round().astype(np.int64)
        return np.arange(count, dtype=np.int64) * num_frames // count

    def thin(self, num_frames: int) -> np.ndarray:
        """Returns all frames, or `max_frames` of them spread evenly where there are more."""
        if num_frames <= self.max_frames:
            return np.arange(num_frames)
        return np.arange(self.max_frames, dtype=np.int64) * num_frames // self.max_frames

    def _inner(self, count: int, num_frames: int, fps: float) -> np.ndarray:
        first, last = 0, num_frames - 1
        if num_frames / fps - 2 * MARGIN > self.max_frames * self.fps:
            first, last = int(MARGIN * fps), min(int(num_frames - MARGIN * fps), last)
        if first >= last:
            first, last = 0, num_frames - 1
        return np.unique(np.linspace(first, last, count, dtype=np.int64))

    def _count(self, num_frames: int, fps: float, name: str) -> int:
        if self.num_frames is not None:
            if self.num_frames > num_frames:
                raise BadVideoError(
                    f"video {name}: {num_frames} frames, but num_frames={self.num_frames} are "
                    "asked for. Ask for fewer."
                )
            return self.num_frames
        most = min(self.max_frames, num_frames) // self.multiple * self.multiple
        exact = num_frames / fps * self.fps
        exact = round(exact) if self.spread == "inner" else exact
        wanted = min(max(exact, self.min_frames), most)
        count = int(wanted // self.multiple) * self.multiple
        if not count:
            raise BadVideoError(
                f"video {name}: of {num_frames} frame{'' if num_frames == 1 else 's'} none is left "
                f"after sampling in multiples of {self.multiple}, at most {self.max_frames}. Give "
                "a longer video, or its frames as pictures."
            )
        return count

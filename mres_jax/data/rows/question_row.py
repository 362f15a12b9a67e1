"""One question of a file with what it is about, whether a task, an evaluation or a reward asks."""

import dataclasses
from typing import Any

import numpy as np

from mres_jax.data.images import decode_image, read_size
from mres_jax.data.rows.forms import with_options
from mres_jax.data.video import FrameSampling, clip_of, open_clip
from mres_jax.errors import BadImageError, BadRowError, BadVideoError
from mres_jax.geometry import Box, Size
from mres_jax.protocols import Clip, Item
from mres_jax.scoring import grade

Picture = str | bytes  # a path, or a file's contents
ClipFiles = str | tuple[str, ...]  # a video file or a folder of frames; or the frames in order


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuestionRow:
    """One question.

    Attributes:
      id: of the file; `#17` where row 17, from 0, has none.
      pictures: files, in reading order.
      question: without its options.
      answers: those that are right; none where nobody knows. What is learned from has one, which
        `rewards.reward` reads.
      type: what it is counted under, and what a reward goes by.
      options: of a multiple choice; the letters A, B, ... name them.
      scorer: of `mres_jax.scoring.grade`.
      tags: whatever else it is counted under.
      box: where the answer stands, px of the first picture; None where it has no place.
      text_height: of the capitals to be read, px of the picture; 0 where nobody says.
      clips: they stand behind the pictures.
    """

    id: str
    pictures: tuple[Picture, ...]
    question: str
    answers: tuple[str, ...] = ()
    type: str = ""
    options: tuple[str, ...] = ()
    scorer: str = "exact"
    tags: tuple[str, ...] = ()
    box: Box | None = None
    text_height: float = 0.0
    clips: tuple[ClipFiles, ...] = ()

    @property
    def prompt(self) -> str:
        """The question with its options."""
        return with_options(self.question, self.options) if self.options else self.question

    @property
    def answer(self) -> str:
        """The first answer that is right; "" where nobody knows."""
        return self.answers[0] if self.answers else ""

    @property
    def is_graded(self) -> bool:
        """Whether it is known what is right."""
        return bool(self.answers) or (self.scorer in ("point", "box") and self.box is not None)

    def images(self) -> list[np.ndarray]:
        """Returns its pictures, `uint8 [h w 3]`.

        Raises:
          BadRowError: a picture that cannot be decoded.
        """
        try:
            return [decode_image(picture) for picture in self.pictures]
        except BadImageError as error:
            raise BadRowError(self.id, str(error)) from None

    def items(self, sampling: FrameSampling) -> list[Item]:
        """Returns its pictures and then its clips; of listed frames, one alone is a picture.

        Args:
          sampling: which frames of a clip, and the rate of frames that lie ready.

        Raises:
          BadRowError: a file that cannot be read.
        """
        try:
            return [*self.images(), *(self._clip(clip, sampling) for clip in self.clips)]
        except (BadImageError, BadVideoError) as error:
            raise BadRowError(self.id, str(error)) from None

    def sizes(self) -> list[Size]:
        """Returns the upright sizes of its pictures, px, from their headers; raises as `images`."""
        try:
            return [read_size(picture) for picture in self.pictures]
        except BadImageError as error:
            raise BadRowError(self.id, str(error)) from None

    def grade(self, answer: Any) -> float:
        """Returns 1.0 where an `Answer` is right, else 0.0."""
        return grade(
            self.scorer,
            answer.text,
            self.answers,
            options=self.options,
            box=self.box,
            views=answer.views,
            coord_frame=answer.coord_frame,
        )

    def _clip(self, clip: ClipFiles, sampling: FrameSampling) -> Clip | np.ndarray:
        if isinstance(clip, str):
            return open_clip(clip, sampling, fps=sampling.fps)
        frames = [decode_image(frame) for frame in clip]
        if len(frames) == 1:
            return frames[0]
        limit = sampling.max_frames
        return clip_of(frames, fps=sampling.fps, max_frames=limit, name=self.id)

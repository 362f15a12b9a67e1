"""A row of a data set, and the kinds of dirt that rows are counted under."""

import dataclasses
import math
from typing import Any, NamedTuple

PLACEHOLDER = "<image>"  # where a picture or clip stands in a turn, as LLaVA writes it
CLIP_PLACEHOLDER = "<video>"  # the same of a clip, where pictures stand beside clips

UNNAMED, UNMARKED = "placeholder without picture", "picture without placeholder"

# A row with one of these is left out. Indexes hold places in it: what is new goes last.
BAD_KINDS = (
    "not JSON",
    "unknown form",  # neither conversations, messages nor a question
    "unknown role",
    "turn order",  # an assistant's turn first, or a late system turn
    "empty turn",
    "no answer",
    "unsafe path",  # absolute, with .., an address, or a link out of the folder
    "missing picture",
    "bad picture",
    "missing video",
    "bad video",
    UNNAMED,
    UNMARKED,
    "no caption",  # more than a picture and its caption, under the plain template
    "refused by policy",
    "changed",  # the file or a picture is another one than was indexed
    "unreadable",  # its part of a parquet file or TFDS shard is damaged
)

# A row with one of these is used, and counted.
NOTE_KINDS = (
    "picture put first",  # a picture, but no placeholder
    "placeholder in an answer",  # stays text
    "unanswered question",  # at the end
    "wrong extension",  # pictures are read by content
    "duplicate id",
)


class Moving(NamedTuple):
    """A clip of a row, by the names of its files relative to the picture folder.

    Attributes:
      video: a video file, or a folder of frames; "" where frames are named one by one.
      frames: picture files in order of time.
      fps: of frames, per second; a video file knows its own.
    """

    video: str = ""
    frames: tuple[str, ...] = ()
    fps: float = 2.0

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.video or f"of {len(self.frames)} frames from {self.frames[0]} on"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One conversation about pictures and clips, whatever form it was written in.

    Attributes:
      id: of the data set; `#17` where row 17, from 0, has none.
      images: names of its pictures, relative to the picture folder, and clips, in reading order.
      turns: `(role, text)`; roles are `system`, `user`, `assistant`, and `<image>` in a user's text
        is the place of the next picture or clip.
    """

    id: str
    images: tuple[str | Moving, ...]
    turns: tuple[tuple[str, str], ...]


class Fault(Exception):
    """Why a row is bad, where its id is not at hand."""

    def __init__(self, kind: str, reason: str):
        super().__init__(kind, reason)
        self.kind, self.reason = kind, reason


def shown(text: object, length: int = 80) -> str:
    """Returns a text of a data set for a message: short, and nothing in it moves the cursor."""
    clean = "".join(c if c.isprintable() else "?" for c in str(text)[: length + 1])
    return clean if len(clean) <= length else f"{clean[: length - 3]}..."


def as_text(value: Any) -> str:
    """A text or a finite number of a row as text, None as ""; raises `Fault` for anything else."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Fault("unknown form", "a text has half a character, a lone surrogate") from None
        return value
    if value is None:
        return ""
    if isinstance(value, float) and not math.isfinite(value):
        raise Fault("unknown form", f"a text or a finite number is needed, got {value}")
    if isinstance(value, int | float):
        return str(value)
    raise Fault("unknown form", f"a text is a {type(value).__name__}")

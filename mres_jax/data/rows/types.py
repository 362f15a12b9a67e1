"""A row of a data set, and the kinds of dirt that rows are counted under."""

import dataclasses

PLACEHOLDER = "<image>"  # where a picture stands in a turn, as LLaVA writes it

# A row with one of these is left out.
BAD_KINDS = (
    "not JSON",
    "unknown form",  # neither conversations, messages nor a question
    "unknown role",
    "turn order",  # an assistant's turn first, or a late system turn
    "empty turn",
    "no answer",
    "video",
    "unsafe path",  # absolute, with .., an address, or a link out of the folder
    "missing picture",
    "bad picture",
    "placeholder without picture",
    "picture without placeholder",
    "no caption",  # more than a picture and its caption, under the plain template
    "refused by policy",
    "changed",  # the file or a picture is another one than was indexed
)

# A row with one of these is used, and counted.
NOTE_KINDS = (
    "picture put first",  # a picture, but no placeholder
    "placeholder in an answer",  # stays text
    "unanswered question",  # at the end
    "wrong extension",  # pictures are read by content
    "duplicate id",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One conversation about pictures, whatever form it was written in.

    Attributes:
      id: of the data set; `#17` where row 17, from 0, has none.
      images: names of its pictures, relative to the picture folder, in reading order.
      turns: `(role, text)`; roles are `system`, `user`, `assistant`, and `<image>` in a user's text
        is the place of the next picture.
    """

    id: str
    images: tuple[str, ...]
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

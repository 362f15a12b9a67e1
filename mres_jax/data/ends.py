"""Whether a picture's file ends as files of its kind do: a copy that broke off does not."""

import os
import pathlib

_TAIL = 12  # bytes at the end that are looked at
_WEBP = 12  # bytes of a WebP's head, its length among them


def ends_well(source: str | os.PathLike[str] | bytes) -> bool:
    """Returns whether the last bytes of a JPEG, PNG, WebP or GIF are those of a whole file.

    Nothing is decoded. A file that ends otherwise may still be whole, since programs write more
    behind a picture; decoding tells. One whose middle is damaged ends well.

    Raises:
      OSError: no such file.
    """
    if isinstance(source, bytes):
        head, tail, size = source[:_WEBP], source[-_TAIL:], len(source)
    else:
        with pathlib.Path(source).open("rb") as file:
            head, size = file.read(_WEBP), file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            tail = file.read()
    if head.startswith(b"\xff\xd8"):
        return tail.endswith(b"\xff\xd9")
    if head.startswith(b"\x89PNG"):
        return tail[-8:-4] == b"IEND"
    if head.startswith(b"RIFF"):
        return int.from_bytes(head[4:8], "little") + 8 <= size
    return head.startswith(b"GIF8") and tail.endswith(b"\x3b")

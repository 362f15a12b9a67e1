"""What the bytes of a video file say about it: its container, and how long it should be."""

import io
import re

HEAD = 512  # bytes that tell the container

_CONTAINERS = {  # FFmpeg's names, by the first bytes
    "mov": rb"....(ftyp(?!hei|hev|mif|msf|avi)|moov|mdat|wide|free|skip)",
    "matroska": rb"\x1aE\xdf\xa3",
    "avi": rb"RIFF....AVI ",
    "flv": rb"FLV\x01",
    "ogg": rb"OggS",
    "mpeg": rb"\0\0\x01\xba",
    "mpegts": rb"G.{187}G",
}
_SEGMENT = 0x18538067  # of Matroska, RFC 9559


def container_of(head: bytes) -> str | None:
    """Returns FFmpeg's name of the container that a file's first bytes are of, or None."""
    found = (k for k, magic in _CONTAINERS.items() if re.match(magic, head, re.DOTALL))
    return next(found, None)


def missing_bytes(file: io.BufferedIOBase, container: str) -> int:
    """Returns how many bytes a file lacks by its own account, 0 where it does not say.

    The boxes of MP4 and MOV, the segment of Matroska and WebM, and the RIFF chunk of AVI say how
    long they are; decoders stop at the end of a file without a word.

    Args:
      file: at any place; it is left there.
      container: of `container_of`.

    Reference:
      ISO/IEC 14496-12, section 4.2; RFC 8794, section 6; RFC 9559, section 5.1.
    """
    ends = {"mov": _end_of_boxes, "matroska": _end_of_segment, "avi": _end_of_riff}
    if container not in ends:
        return 0
    place = file.tell()
    length = file.seek(0, 2)
    end = ends[container](file, length)
    file.seek(place)
    return max(0, end - length)


def _end_of_boxes(file: io.BufferedIOBase, length: int) -> int:
    end = 0
    while end < length:
        file.seek(end)
        header = file.read(16)
        size = int.from_bytes(header[:4], "big")
        if size == 1:
            size = int.from_bytes(header[8:16], "big")
        elif size == 0:  # to the end of the file
            return length
        end += max(size, 8)
    return end


def _end_of_segment(file: io.BufferedIOBase, length: int) -> int:
    file.seek(4)
    header = _read_size(file)
    if header is None:
        return length
    file.seek(file.tell() + header)
    if int.from_bytes(file.read(4), "big") != _SEGMENT:
        return length
    size = _read_size(file)
    return length if size is None else file.tell() + size


def _end_of_riff(file: io.BufferedIOBase, length: int) -> int:
    file.seek(4)
    return 8 + int.from_bytes(file.read(4), "little")


def _read_size(file: io.BufferedIOBase) -> int | None:
    """A size of one to eight bytes, the first of which says how many; None where it is unknown."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    value = int.from_bytes(first + file.read(more), "big") - (1 << 7 * (more + 1))
    return None if value == (1 << 7 * (more + 1)) - 1 else value

"""Which way up a picture is, and turning it."""

import io

from PIL import Image

_TAG = 0x0112  # EXIF 2.32, section 4.6.4
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; 1 where there is none or it makes no sense."""
    try:
        # The method of the base class: that of PNG decodes the picture to look behind its pixels.
        value = Image.Image.getexif(image).get(_TAG)
    except Exception:  # unreadable metadata does not spoil the pixels
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """The picture as its EXIF orientation says that it is to be seen."""
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def has_late_metadata(image: Image.Image) -> bool:
    """Whether a PNG says something about its orientation behind its pixels."""
    stream: io.BufferedIOBase = image.fp  # type: ignore[attr-defined]
    position, behind = stream.tell(), False
    stream.seek(8)
    while len(header := stream.read(8)) == 8 and header[4:] != b"IEND":
        length, kind = int.from_bytes(header[:4], "big"), header[4:]
        behind = behind or kind == b"IDAT"
        if behind and kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
            keyword = stream.read(min(length, 32))
            if kind == b"eXIf" or keyword.startswith((b"Raw profile type exif", b"XML:com.adobe")):
                break
            length -= len(keyword)
        stream.seek(length + 4, io.SEEK_CUR)
    else:
        header = b""
    stream.seek(position)
    return len(header) == 8

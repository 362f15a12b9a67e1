"""Picture files -> upright RGB pixels, or one `BadImageError`: the only decoder of the library.

Axes: h rows, w columns, 3 colour channels.

What each kind of file becomes is written down in `docs/guides/pictures.md`. Nothing of Pillow's
global state is read or changed on purpose: its pixel limit, its list of formats and the process's
warning filters belong to the user, and several threads may decode at once.
"""

import contextlib
import io
import os
import pathlib
import re
import stat
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from mres_jax.data._orientation import has_late_metadata, read_orientation, turn_upright
from mres_jax.data._pixels import keep_memory
from mres_jax.errors import BadImageError
from mres_jax.geometry import Size

MAX_PIXELS = 64_000_000  # a 9000 x 9000 PNG of 78 kB would take seconds and 240 MB

ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:(//|.*;base64,)")  # never fetched

Source = str | os.PathLike | bytes
_T = TypeVar("_T")

_PLUGINS: dict[str, Callable[[Any], Image.Image]] = {
    "JPEG": JpegImagePlugin.jpeg_factory,
    "PNG": PngImagePlugin.PngImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
}
_SIGNATURES = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "WebP": rb"RIFF....WEBP",
    "BMP": rb"BM",
    "GIF": rb"GIF8[79]a",
    # never decoded, only told by name
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "EPS": rb"%!PS|\xc5\xd0\xd3\xc6",
    "PDF": rb"%PDF",
    "PSD": rb"8BPS",
    "FITS": rb"SIMPLE  =",
    "JPEG 2000": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    "ICO": rb"\0\0[\x01\x02]\0",
    "HEIF or AVIF": rb"....ftyp(hei[cxms]|hev[cxms]|mif1|msf1|avi[fs])",
    "MP4 or MOV": rb"....ftyp",
    "SVG": rb"\s*(<\?xml.*)?(<!--.*)?<(!doctype )?svg",
    "HTML": rb"\s*<(!doctype html|html|head|body)",
}
_HEAD = 512  # bytes that the signatures look at


class Header(NamedTuple):
    """What a picture file says before its pixels."""

    size: Size  # upright
    format: str  # `JPEG`, `PNG`, `WebP`, `BMP` or `GIF`, by content


def decode_image(
    source: Source,
    *,
    max_pixels: float = MAX_PIXELS,
    background: tuple[int, int, int] = (255, 255, 255),
    name: str | None = None,
) -> np.ndarray:
    """Returns the pixels that a person would see.

    The EXIF orientation is applied, transparency is composited on `background`, 16-bit samples keep
    their upper byte, CMYK becomes RGB. Of an animation the first frame is taken, with a
    `UserWarning` that names the file.

    Args:
      source: path, or the bytes of a file: JPEG, PNG, WebP, BMP or GIF by content, not by name.
      max_pixels: larger pictures are refused from their header.
      background: RGB 0..255, seen where the picture is transparent.
      name: what errors call the picture; its path by default.

    Returns:
      `uint8 [h w 3]`, read-only: its views share its memory.

    Raises:
      BadImageError: no such file; another format; too large, damaged or truncated. The message
        names file and reason.
    """
    return _decoded(source, max_pixels, background, name, into=_array)


def decode_pillow(
    source: Source,
    *,
    max_pixels: float = MAX_PIXELS,
    background: tuple[int, int, int] = (255, 255, 255),
    name: str | None = None,
) -> Image.Image:
    """Returns the same pixels as `decode_image`, left where Pillow has them, mode RGB.

    `render_view` resizes them there, which spares two copies of the whole picture.
    """
    return _decoded(source, max_pixels, background, name, into=lambda image: image)


def _decoded(
    source: Source,
    max_pixels: float,
    background: tuple[int, int, int],
    name: str | None,
    *,
    into: Callable[[Image.Image], _T],
) -> _T:
    keep_memory()
    name = _name(source) if name is None else name
    with _opened(source, name, max_pixels) as image:
        pixels = _to_rgb(image, background)
        orientation = read_orientation(image)  # behind the pixels of a PNG there may be metadata
        # JPEGs of several pictures (MPO) hold previews and gain maps behind the photograph.
        animated = image.format != "MPO" and getattr(image, "is_animated", False)
        result = into(turn_upright(pixels, orientation))
    if animated:
        warnings.warn(
            f"picture {name}: it is animated, and only its first frame is used. Give the frames "
            "as pictures to use them.",
            stacklevel=3,
        )
    return result


def _array(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image)
    pixels.flags.writeable = False
    return pixels


def read_size(source: Source, *, max_pixels: float = MAX_PIXELS, name: str | None = None) -> Size:
    """Returns the size of what `decode_image` would return, without decoding.

    Args:
      source: path, or the bytes of a file.
      max_pixels: as for `decode_image`.
      name: what errors call the picture; its path by default.

    Raises:
      BadImageError: no such file, another format, a damaged header, too many pixels.
    """
    return read_header(source, max_pixels=max_pixels, name=name).size


def read_header(
    source: Source, *, max_pixels: float = MAX_PIXELS, name: str | None = None
) -> Header:
    """Returns size and format of a picture, without decoding; arguments as for `read_size`.

    Raises:
      BadImageError: no such file, another format, a damaged header, too many pixels.
    """
    with _opened(source, _name(source) if name is None else name, max_pixels) as image:
        width, height = image.size
        if image.format == "PNG" and has_late_metadata(image):
            image.load()
        size = Size(width, height) if read_orientation(image) >= 5 else Size(height, width)
        kind = image.format or ""
        return Header(size, {"MPO": "JPEG", "WEBP": "WebP"}.get(kind, kind))


@contextlib.contextmanager
def _opened(source: Source, name: str, max_pixels: float) -> Iterator[Image.Image]:
    """A picture whose header was read and found acceptable; all that fails is a BadImageError."""
    try:
        with _stream(source) as stream:
            image = _parse_header(stream)
            width, height = image.size
            if width * height > max_pixels:
                raise _Refused(
                    f"{width} x {height} = {width * height} px, more than max_pixels="
                    f"{max_pixels:.0f}. Make it smaller, or raise max_pixels"
                )
            yield image
    except _Refused as error:
        raise BadImageError(f"picture {name}: {error}.") from None
    except OSError as error:
        reason = error.strerror.lower() if error.strerror else _damage(error)
        raise BadImageError(f"picture {name}: {reason}.") from None
    except Exception as error:  # parsers of hostile bytes raise whatever they like
        raise BadImageError(f"picture {name}: {_damage(error)}.") from None


class _Refused(Exception):
    """A reason of our own, in words."""


def _stream(source: Source) -> io.BufferedIOBase:
    if isinstance(source, bytes):
        if not source:
            raise _Refused("it has no bytes")
        return io.BytesIO(source)
    if not isinstance(source, str | os.PathLike):
        raise _Refused(f"a picture is a path or bytes, got {type(source).__name__}")
    if ADDRESS.match(os.fspath(source)):
        raise _Refused("it is a URL, but pictures are read from files. Download it first")
    path = pathlib.Path(source)
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise _Refused("it is a directory. Give a file in it")
    if not stat.S_ISREG(status.st_mode):
        raise _Refused("it is not a regular file")
    if not status.st_size:
        raise _Refused("the file is empty")
    return path.open("rb")


def _parse_header(stream: io.BufferedIOBase) -> Image.Image:
    # The plugin is called by name: `Image.open` would try others and apply its own pixel limit.
    head = stream.read(_HEAD)
    stream.seek(0)
    flags = re.DOTALL | re.IGNORECASE
    kind = next((k for k, magic in _SIGNATURES.items() if re.match(magic, head, flags)), None)
    if kind not in _PLUGINS:
        found = f"it is {kind}" if kind else "its contents are no known picture"
        raise _Refused(f"{found}; only {', '.join(_PLUGINS)} are read. Convert it first")
    return _PLUGINS[kind](stream)


def _damage(error: Exception) -> str:
    """What a parser complained about, in one line and without memory addresses."""
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    text = " ".join(re.sub(r"<[^>]*>|0x[0-9a-fA-F]+", "", str(error)).split())
    return f"damaged or truncated ({text[:120] or type(error).__name__})"


def _to_rgb(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    _scale_colour_key(image)
    image.load()
    if image.mode.startswith("I;16"):
        return _grey16_to_rgb(image, background)
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, (*background, 255))
        image = Image.alpha_composite(ground, image.convert("RGBA"))
    elif image.mode not in ("1", "L", "P", "RGB", "CMYK"):
        raise _Refused(f"pixels of mode {image.mode} are not supported. Save it as RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _scale_colour_key(image: Image.Image) -> None:
    """Brings the transparent colour of a PNG to the 8 bits that its samples are unpacked to."""
    key, tiles = image.info.get("transparency"), getattr(image, "tile", None)
    raw_mode = tiles[0].args if tiles else None
    if raw_mode in ("L;2", "L;4") and isinstance(key, int):
        image.info["transparency"] = key * {"L;2": 85, "L;4": 17}[raw_mode]
    elif raw_mode == "RGB;16B" and isinstance(key, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in key)


def _grey16_to_rgb(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    # Pillow would saturate at 255. The upper byte is what it keeps of 16-bit colour too.
    samples = np.asarray(image).astype(np.uint16)
    pixels = np.repeat((samples >> 8).astype(np.uint8)[..., None], 3, axis=2)
    key = image.info.get("transparency")
    if key is not None:
        pixels[samples == key] = background
    return Image.fromarray(pixels)


def _name(source: Source) -> str:
    if isinstance(source, str | os.PathLike):
        text = os.fspath(source)
        text = text if isinstance(text, str) else os.fsdecode(text)
        return "".join(c if c.isprintable() else "?" for c in text[:300])
    return f"of {len(source)} bytes" if isinstance(source, bytes) else "given"

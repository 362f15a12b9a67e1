"""A view of a decoded picture -> the pixels that an encoder receives.

Axes: h, w of the picture; H, W of the view; 3 colour channels.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from mres_jax.data._pixels import Pixels, check_pixels
from mres_jax.errors import MresError
from mres_jax.geometry import Box, Size, View

FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
}
MAX_WHOLE = 2**26  # px; Pillow holds 4 bytes of each


def render_view(
    image: Pixels,
    view: View,
    *,
    background: tuple[int, int, int] = (128, 128, 128),
    pad_first: bool = False,
    resample: str = "bicubic",
) -> np.ndarray:
    """Returns what `view` shows of a picture.

    The crop is cut out first, so that nothing outside it is seen, then resized with Pillow's filter
    (as Hugging Face's PIL processors do), then centred on the canvas if there is one, of which a
    window may be cut. A crop that has its size already is not resampled: its pixels are unchanged.
    Where the whole would have more than `MAX_WHOLE` px (a strip whose middle square is shown), only
    the window is made. Its places are rounded to float32, so that values may differ by 1 or 2, and
    by more where Pillow would have shrunk the columns of a tall strip before its rows.

    Args:
      image: upright: `uint8 [h w 3]` of `decode_image`, or what `decode_pillow` returns, which is
        quicker.
      view: crop and sizes.
      background: colour of the canvas, RGB 0..255.
      pad_first: centre the crop on the smallest square around it, then resize that to the canvas,
        as LLaVA does: the edge of the picture is smoothed into the background.
      resample: a name in `FILTERS`.

    Returns:
      `uint8 [H W 3]`; it may share memory with `image`.

    Raises:
      MresError: not such an array; a crop that leaves the picture; a size that leaves the canvas;
        a window that leaves both.
    """
    _check_view(check_pixels(image, where="view"), view)
    if is_too_large(view):
        return _window_alone(image, view, FILTERS[resample])
    whole = _whole(image, view, background, FILTERS[resample], pad_first=pad_first)
    return cut_window(whole, view)


def is_too_large(view: View) -> bool:
    """Whether a view's window is made without all around it."""
    is_plain = view.window is not None and view.canvas is None and not view.through
    return is_plain and view.size.area > MAX_WHOLE


def cut_window(pixels: np.ndarray, view: View) -> np.ndarray:
    """Returns the window of a view out of all that its crop became."""
    if view.window is not None:
        top, left, bottom, right = view.window
        pixels = pixels[top:bottom, left:right]
    return np.ascontiguousarray(pixels)


def _whole(
    image: Pixels,
    view: View,
    background: tuple[int, int, int],
    resample: Image.Resampling,
    *,
    pad_first: bool,
) -> np.ndarray:
    """The resized crop on its canvas."""
    crop, size, canvas = view.crop, view.size, view.canvas
    if canvas is not None and pad_first:
        side = max(crop.size)
        padded = _centred(np.asarray(_cut(image, crop)), Size(side, side), background)
        return np.asarray(_resized(Image.fromarray(padded), [canvas], resample))
    if isinstance(image, Image.Image) or view.through or crop.size != size:
        pixels = np.asarray(_resized(_cut(image, crop), [*view.through, size], resample))
    else:
        pixels = image[crop.top : crop.bottom, crop.left : crop.right]
    return pixels if canvas is None else _centred(pixels, canvas, background)


def _window_alone(image: Pixels, view: View, resample: Image.Resampling) -> np.ndarray:
    """The window of a resized crop, out of the part of the crop that it depends on."""
    assert view.window is not None
    top, left, bottom, right = view.window
    rows, y0, y1 = _source(top, bottom, view.crop.size.height, view.size.height)
    columns, x0, x1 = _source(left, right, view.crop.size.width, view.size.width)
    crop = view.crop
    part = Box(
        crop.top + rows.start,
        crop.left + columns.start,
        crop.top + rows.stop,
        crop.left + columns.stop,
    )
    width, height = right - left, bottom - top
    cut = _cut(image, part)
    # Rows first, as Pillow does where both sides change alike; of a part it could do otherwise.
    cut = cut.resize((width, cut.height), resample, box=(x0, 0, x1, cut.height))
    cut = cut.resize((width, height), resample, box=(0, y0, width, y1))
    return np.ascontiguousarray(np.asarray(cut))


def _source(start: int, stop: int, num_in: int, num_out: int) -> tuple[range, float, float]:
    """Samples before a resize that those from `start` to `stop` after it depend on.

    Returns:
      Those samples, and the place of the stretch in them: small numbers, which float32 holds well.
    """
    reach = 4 * max(1, -(-num_in // num_out))  # the widest filter takes 3 to either side
    first = max(0, start * num_in // num_out - reach)
    last = min(num_in, -(-stop * num_in // num_out) + reach)
    low, high = ((edge * num_in - first * num_out) / num_out for edge in (start, stop))
    return range(first, last), low, high


def _centred(pixels: np.ndarray, canvas: Size, background: tuple[int, int, int]) -> np.ndarray:
    out = np.empty((*canvas, 3), np.uint8)
    out[:] = background
    height, width = pixels.shape[:2]
    top, left = (canvas.height - height) // 2, (canvas.width - width) // 2
    out[top : top + height, left : left + width] = pixels
    return out


def _cut(image: Pixels, crop: Box) -> Image.Image:
    top, left, bottom, right = crop
    if isinstance(image, np.ndarray):
        return Image.fromarray(np.ascontiguousarray(image[top:bottom, left:right]))
    whole = crop == (0, 0, image.height, image.width)
    return image if whole else image.crop((left, top, right, bottom))


def _resized(image: Image.Image, sizes: Sequence[Size], resample: Image.Resampling) -> Image.Image:
    for size in sizes:
        if image.size != (size.width, size.height):
            image = image.resize((size.width, size.height), resample)
    return image


def _check_view(picture: Size, view: View) -> None:
    height, width = picture
    top, left, bottom, right = view.crop
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise MresError(
            f"view: the crop of picture {view.item} spans rows {top} to {bottom} and columns "
            f"{left} to {right}, but the picture has {height} rows and {width} columns."
        )
    for size in (*view.through, view.size):
        if min(size) < 1:
            raise MresError(
                f"view: picture {view.item} would be resized to {size.width} x {size.height} px; "
                "each side must be at least 1."
            )
    if view.canvas is not None and (
        view.size.height > view.canvas.height or view.size.width > view.canvas.width
    ):
        raise MresError(
            f"view: picture {view.item} at {view.size.width} x {view.size.height} px does not fit "
            f"its canvas of {view.canvas.width} x {view.canvas.height} px."
        )
    top, left, bottom, right = view.window or Box(0, 0, 1, 1)
    outer = view.canvas or view.size
    if not (0 <= top < bottom <= outer.height and 0 <= left < right <= outer.width):
        raise MresError(
            f"view: the window of picture {view.item} spans rows {top} to {bottom} and columns "
            f"{left} to {right}, but there are {outer.height} rows and {outer.width} columns."
        )

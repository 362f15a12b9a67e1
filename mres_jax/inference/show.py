"""What a model saw, as pictures for people: views, their token grid, the crop on the original.

Axes: h rows, w columns, 3 colour channels, pixels throughout.
"""

import io
import re
from collections.abc import Sequence

import numpy as np
from PIL import Image

from mres_jax.data.shown import render_seen
from mres_jax.data.spec import ProcessorSpec
from mres_jax.geometry import Box, View
from mres_jax.protocols import Clip, Item

GRID_COLOUR = (213, 94, 0)  # vermilion of the Okabe-Ito set: seen by colour-blind readers too
MIN_SHOWN_SIDE = 640  # px; smaller views are enlarged to about this
MAX_ZOOM = 16


def show_views(
    images: Sequence[Item], views: Sequence[View], spec: ProcessorSpec, *, name: str
) -> dict[str, bytes]:
    """Returns PNG files of everything that a model looked at.

    For each view: `-view.png` at the very size the model received, `-tokens.png` the same enlarged
    without smoothing and ruled into visual tokens, `-crop.png` the original with the crop framed.
    Of a clip every frame has a `-view.png`, and the first one the other two.

    Args:
      images: upright pictures and clips of the request.
      views: what the model looked at.
      spec: of the model.
      name: how the file names begin, for example the policy.
    """
    files: dict[str, bytes] = {}
    for number, view in enumerate(views):
        item, stem = images[view.item], f"{file_stem(name)}-item{view.item}"
        if isinstance(item, Clip):
            files |= _show_frames(item, view, spec, stem)
            continue
        stem += f"-view{number}" if len(views) > 1 else ""
        files |= _show(item, view, spec, stem)
    return files


def _show(image: np.ndarray, view: View, spec: ProcessorSpec, stem: str) -> dict[str, bytes]:
    pixels = render_seen(image, view, spec)
    return {
        f"{stem}-view.png": png(pixels),
        f"{stem}-tokens.png": png(draw_token_grid(pixels, spec.stride)),
        f"{stem}-crop.png": png(draw_crop(image, view.crop)),
    }


def _show_frames(clip: Clip, view: View, spec: ProcessorSpec, stem: str) -> dict[str, bytes]:
    """The frames that are seen together, by number and time."""
    files = {}
    for i in dict.fromkeys(view.frames):
        name = f"{stem}-frame{i:04d}-{clip.times[i]:.2f}s"
        if i == 0:
            files |= _show(clip.frames[i], view, spec, name)
        else:
            files[f"{name}-view.png"] = png(render_seen(clip.frames[i], view, spec))
    return files


def file_stem(text: str) -> str:
    """Returns a text as part of a file name.

    Example:
      >>> file_stem("fixed:336,mode=pad")
      'fixed-336-mode-pad'
    """
    return re.sub(r"[^\w.]+", "-", text).strip("-.") or "view"


def zoom_of(height: int, width: int, *, shown: int = MIN_SHOWN_SIDE) -> int:
    """Returns the whole factor that brings the longer side of a view to about `shown`."""
    return min(MAX_ZOOM, max(1, round(shown / max(height, width))))


def draw_token_grid(
    pixels: np.ndarray, stride: int, *, zoom: int | None = None, strength: float = 0.45
) -> np.ndarray:
    """Returns a view enlarged without smoothing, ruled where visual tokens meet.

    Args:
      pixels: a view, `uint8 [h w 3]`; sides are multiples of `stride`.
      stride: side of one visual token.
      zoom: whole factor; None chooses one.
      strength: of the lines, 0 unseen to 1 opaque.
    """
    zoom = zoom or zoom_of(*pixels.shape[:2])
    large = pixels.repeat(zoom, axis=0).repeat(zoom, axis=1).astype(np.float32)
    step = stride * zoom
    ruled = np.zeros(large.shape[:2], bool)
    ruled[::step], ruled[:, ::step] = True, True
    ruled[-1], ruled[:, -1] = True, True
    colour = np.array(GRID_COLOUR, np.float32)
    large[ruled] = (1 - strength) * large[ruled] + strength * colour
    return large.round().astype(np.uint8)


def draw_crop(image: np.ndarray, crop: Box) -> np.ndarray:
    """Returns the original with what lies outside the crop faded and the crop framed."""
    height, width = image.shape[:2]
    line = max(2, round(max(height, width) / 300))
    out = (0.4 * image.astype(np.float32) + 0.6 * 255).round().astype(np.uint8)
    inside = (slice(crop.top, crop.bottom), slice(crop.left, crop.right))
    out[inside] = image[inside]
    for edge in (
        (slice(crop.top, crop.top + line), inside[1]),
        (slice(max(crop.bottom - line, 0), crop.bottom), inside[1]),
        (inside[0], slice(crop.left, crop.left + line)),
        (inside[0], slice(max(crop.right - line, 0), crop.right)),
    ):
        out[edge] = GRID_COLOUR
    return out


def png(pixels: np.ndarray) -> bytes:
    """Returns `uint8 [h w 3]` as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()

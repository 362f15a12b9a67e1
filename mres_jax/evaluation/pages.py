"""The eight documents of the demo: drawn, written to disk, read back as any user's picture is."""

import io
import math
import pathlib
from typing import NamedTuple

import numpy as np
from PIL import Image

from mres_jax.data.documents import Document, Question, item_seed, make_document
from mres_jax.data.images import decode_image
from mres_jax.files import write_together
from mres_jax.geometry import Box, View

PAGES = (  # kind, area bin, ratio bin, type of question
    ("invoice", "D", "AH", "rc"),
    ("table", "C", "NM", "rc"),
    ("sign", "B", "AW", "rc"),
    ("screen", "D", "NM", "sc"),
    ("invoice", "E", "BW", "rc"),
    ("table", "E", "AW", "rc"),
    ("sign", "C", "AH", "sc"),
    ("screen", "E", "NM", "rc"),
)
SEEDS = 1_000  # distance of the seeds of pages from the user's


class Page(NamedTuple):
    """One document on disk and what is asked about it."""

    path: pathlib.Path
    image: np.ndarray  # as decoded from the file
    question: Question


def write_pages(out: pathlib.Path, seed: int) -> list[Page]:
    """Draws the eight documents, writes them as PNG and JPEG and reads them back."""
    documents = [
        make_document(item_seed(seed, SEEDS + i), kind=kind, area_bin=area_bin, ratio_bin=ratio_bin)
        for i, (kind, area_bin, ratio_bin, _) in enumerate(PAGES)
    ]
    names = [f"{i + 1}-{page[0]}.{('png', 'jpg')[i % 2]}" for i, page in enumerate(PAGES)]
    files = {name: _encode(document, name) for name, document in zip(names, documents, strict=True)}
    return [
        Page(path, decode_image(path), _first(document, page[3]))
        for path, document, page in zip(write_together(out, files), documents, PAGES, strict=True)
    ]


def _encode(document: Document, name: str) -> bytes:
    buffer = io.BytesIO()
    options = {} if name.endswith(".png") else {"quality": 92, "subsampling": 0}
    kind = "PNG" if name.endswith(".png") else "JPEG"
    Image.fromarray(document.image).save(buffer, format=kind, **options)
    return buffer.getvalue()


def _first(document: Document, kind: str) -> Question:
    """The first question of a type, or of any where the document has none of it."""
    return next((q for q in document.questions if q.type == kind), document.questions[0])


def cut_detail(pixels: np.ndarray, view: View, box: Box) -> np.ndarray:
    """Returns the part of a view that shows a box of the original, with a little around it.

    Args:
      pixels: the rendered view, `uint8 [h w 3]`.
      view: what it shows.
      box: px of the original.
    """
    top, left, bottom, right = detail_box(view, box)
    return pixels[top:bottom, left:right]


def detail_box(view: View, box: Box) -> Box:
    """Returns where `cut_detail` cuts, px of the rendered view; at least one pixel."""
    space = (box.bottom - box.top) // 3
    whole = view.encoded_size
    ends = []
    for low, high, begin, extent, size, outer in (
        (box.top, box.bottom, view.crop.top, view.crop.size.height, view.size.height, whole.height),
        (box.left, box.right, view.crop.left, view.crop.size.width, view.size.width, whole.width),
    ):
        margin = (outer - size) // 2  # of the canvas, where there is one
        first = margin + math.floor((low - space - begin) * size / extent)
        last = margin + math.ceil((high + space - begin) * size / extent)
        first = min(max(first, 0), outer - 1)
        ends.append((first, max(min(last, outer), first + 1)))
    (top, bottom), (left, right) = ends
    return Box(top, left, bottom, right)

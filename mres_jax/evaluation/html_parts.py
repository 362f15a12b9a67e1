"""Parts of pages that are one file without links: pictures inside, texts that stay texts."""

import base64
import functools
import html
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image


def data_url(pixels: np.ndarray) -> str:
    """Returns `uint8 [h w 3]` as lossless WebP in an address of its own."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="WEBP", lossless=True, quality=60, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def html_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns head and body of a table; the first cell of a row is its name."""
    cell = functools.partial(html.escape, quote=False)
    head = "".join(f'<th scope="col">{cell(header)}</th>' for header in headers)
    body = "\n".join(
        f'<tr><th scope="row">{cell(row[0])}</th>'
        + "".join(f"<td>{cell(value)}</td>" for value in row[1:])
        + "</tr>"
        for row in rows
    )
    return f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>"


def html_figure(name: str, png: bytes) -> str:
    """Returns a figure with its caption."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    words = html.escape(name)
    return f'<figure><img src="{source}" alt="{words}"><figcaption>{words}</figcaption></figure>'

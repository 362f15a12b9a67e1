"""Sets of documents, spread evenly over the 35 cells, in memory or on disk."""

import json
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from mres_jax.data.documents.bins import BINS
from mres_jax.data.documents.design import make_document
from mres_jax.data.documents.document import Document
from mres_jax.data.documents.types import Options, Question
from mres_jax.errors import MresError


def item_seed(seed: int, index: int) -> int:
    """Seed of one document of a set: independent for every (seed, index)."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0])


def make_set(
    seed: int,
    n: int,
    *,
    bins: Sequence[tuple[str, str]] = BINS,
    weights: Sequence[float] | None = None,
    options: Options | None = None,
) -> Iterator[Document]:
    """Yields `n` documents, one cell after the other.

    Args:
      bins: cells `(area bin, ratio bin)` to draw from.
      weights: share of each cell; None goes round all of them, so counts differ by at most 1.
    """
    if n < 0 or not bins or (weights is not None and len(weights) != len(bins)):
        raise MresError(
            f"make_set: n={n}, {len(bins)} bins and "
            f"{'no' if weights is None else len(weights)} weights do not go together."
        )
    cells = [i % len(bins) for i in range(n)]
    if weights is not None:
        share = np.array(weights, np.float64) / np.sum(weights)
        cells = np.random.Generator(np.random.PCG64(seed)).choice(len(bins), n, p=share).tolist()
    for i, cell in enumerate(cells):
        area_bin, ratio_bin = bins[cell]
        yield make_document(
            item_seed(seed, i), area_bin=area_bin, ratio_bin=ratio_bin, options=options
        )


def row_of(question: Question, image_name: str) -> dict:
    """Returns a question in the project's one row format, with its box (px) where it has one."""
    row = {
        "id": question.id,
        "images": [image_name],
        "question": question.text,
        "answer": question.answer,
        "type": question.type,
        "options": None,
        "scorer": question.scorer,
        "tags": list(question.tags),
    }
    if question.box is not None:
        row["box"] = list(question.box)  # top, left, bottom, right
    return row


def write_set(
    folder: str | pathlib.Path,
    seed: int,
    n: int,
    *,
    bins: Sequence[tuple[str, str]] = BINS,
    weights: Sequence[float] | None = None,
    options: Options | None = None,
    jpeg_share: float = 0.5,
) -> pathlib.Path:
    """Writes `n` pictures as PNG or JPEG and every question about them as `rows.jsonl`.

    Returns:
      The path of `rows.jsonl`, which is written last: a folder that has it is complete.
    """
    folder = pathlib.Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    for i, document in enumerate(make_set(seed, n, bins=bins, weights=weights, options=options)):
        is_jpeg = (i + 1) * jpeg_share % 1 < jpeg_share and jpeg_share > 0
        name = f"images/{i:05d}.{'jpg' if is_jpeg else 'png'}"
        picture = Image.fromarray(document.image)
        if is_jpeg:
            picture.save(folder / name, quality=92, subsampling=0)
        else:
            picture.save(folder / name)
        lines += [json.dumps(row_of(question, name)) for question in document.questions]
    rows = folder / "rows.jsonl"
    partial = rows.with_suffix(".partial")
    partial.write_text("".join(line + "\n" for line in lines))
    partial.replace(rows)
    return rows

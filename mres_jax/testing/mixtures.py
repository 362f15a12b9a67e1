"""Sizes like those of public instruction data, made up from a seed: to plan packs without any data.

Shares of the sources follow the published composition of LLaVA-1.5's 665K mixture (Liu et al.,
2023, arXiv:2310.03744, table 7); picture
sizes per source and text lengths are typical values, not measured ones.
"""

from typing import NamedTuple

import numpy as np

from mres_jax.data.types import ExampleSize
from mres_jax.geometry import Size, fit_size


class Row(NamedTuple):
    """One conversation: its picture, if any, and the tokens of its text."""

    size: Size | None
    text_tokens: int


def llava_like_rows(num_rows: int, *, seed: int = 0) -> list[Row]:
    """Returns rows in random order: 55 % COCO, 13 % VG, 11 % GQA, 12 % OCR-VQA, 3 % TextCaps and
    6 % without a picture.

    Text lengths are log-normal with a mean of about 200 tokens, of about 700 for rows without a
    picture, cut to 16..2,048 tokens.
    """
    rng = np.random.default_rng(seed)
    sources = rng.choice(6, num_rows, p=(0.55, 0.13, 0.11, 0.12, 0.03, 0.06))
    makers = (_coco, _visual_genome, _visual_genome, _book_cover, _photo_1024)
    rows = []
    for source in sources.tolist():
        text_only = source == len(makers)
        size = None if text_only else makers[source](rng)
        length = rng.lognormal(np.log(700 if text_only else 200) - 0.32, 0.8)
        rows.append(Row(size, int(np.clip(length, 16, 2_048))))
    return rows


def llava_like_sizes(num_rows: int, *, seed: int = 0) -> list[ExampleSize]:
    """Returns what such rows take of a pack at native resolution, as Qwen2-VL sees them.

    Patches of 14 px, 2 x 2 of them a visual token, 4 to 16,384 visual tokens a picture.
    """
    patch, merge = 14, 2
    stride, sizes = patch * merge, []
    for size, text_tokens in llava_like_rows(num_rows, seed=seed):
        patches = 0
        if size is not None:
            fitted = fit_size(
                *size, stride=stride, min_pixels=4 * stride**2, max_pixels=16_384 * stride**2
            )
            patches = fitted.area // patch**2
        sizes.append(ExampleSize(patches, text_tokens + patches // merge**2, int(size is not None)))
    return sizes


def _coco(rng: np.random.Generator) -> Size:
    short = 480 if rng.random() < 0.65 else int(rng.integers(320, 641))
    return _turned(rng, short, 640, landscape=0.7)


def _visual_genome(rng: np.random.Generator) -> Size:
    long = int(rng.choice((500, 640, 800, 1_024), p=(0.5, 0.2, 0.2, 0.1)))
    ratio = float(rng.choice((0.75, 0.667, 0.5625))) if rng.random() < 0.8 else rng.uniform(0.5, 1)
    return _turned(rng, round(long * ratio), long, landscape=0.75)


def _book_cover(rng: np.random.Generator) -> Size:
    return Size(int(rng.choice((475, 500))), int(rng.integers(280, 420)))


def _photo_1024(rng: np.random.Generator) -> Size:
    return _turned(rng, int(rng.choice((683, 768, 1_024))), 1_024, landscape=0.75)


def _turned(rng: np.random.Generator, short: int, long: int, *, landscape: float) -> Size:
    return Size(short, long) if rng.random() < landscape else Size(long, short)

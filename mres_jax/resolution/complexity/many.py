"""Complexity of many pictures, on several processes."""

import concurrent.futures
import functools
import multiprocessing
import os
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from mres_jax.data.images import decode_image
from mres_jax.resolution.complexity.measures import find_complexity

Source = str | os.PathLike[str] | bytes | np.ndarray
_CHUNK = 8  # pictures handed over at a time


def measure_images(
    sources: Sequence[Source], measure: str = "mdl", *, workers: int = 1
) -> Float[np.ndarray, " n"]:
    """Returns the complexity of each picture, in order.

    Args:
      sources: paths, the bytes of files, or upright `uint8 [h w 3]`.
      measure: a name of `COMPLEXITIES`.
      workers: processes; 1 works in this one. The numbers are the same.

    Raises:
      MresError: an unknown measure, or a picture that cannot be decoded; names it.
    """
    find_complexity(measure)
    one = functools.partial(_measure, measure=measure)
    if workers <= 1 or len(sources) <= _CHUNK:
        return np.array([one(source) for source in sources], np.float64)
    context = multiprocessing.get_context("spawn")  # a fork would copy threads of jax
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
        return np.array(list(pool.map(one, sources, chunksize=_CHUNK)), np.float64)


def _measure(source: Source, *, measure: str) -> float:
    image = source if isinstance(source, np.ndarray) else decode_image(source)
    return find_complexity(measure)(image)

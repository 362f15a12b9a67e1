"""Video files of a second or two."""

import fractions
import importlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np


def write_video(
    path: str | os.PathLike[str], frames: Sequence[np.ndarray], *, fps: int = 10
) -> None:
    """Writes frames without losses (FFV1), with PyAV; the container follows from the name.

    Args:
      path: that ends in `.mkv` or `.avi`.
      frames: `uint8 [h w 3]`, of one size.
      fps: per second.
    """
    av: Any = importlib.import_module("av")
    with av.open(os.fspath(path), "w") as container:
        stream = container.add_stream("ffv1", rate=fps)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "bgr0"
        stream.codec_context.time_base = fractions.Fraction(1, 1_000)
        for i, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts = round(1_000 * i / fps)
            picture.time_base = fractions.Fraction(1, 1_000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))

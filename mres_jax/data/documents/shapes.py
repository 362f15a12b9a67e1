"""Large simple shapes with smooth edges, for logos."""

import functools
import math

import numpy as np

SHAPES = ("circle", "square", "triangle", "star", "diamond", "cross")


ARROWS = ("arrow up", "arrow left", "arrow down", "arrow right")  # of signs; not asked for


@functools.lru_cache(maxsize=256)
def shape_mask(shape: str, side: int) -> np.ndarray:
    """Returns the ink of a shape that fills a square, `uint8 [side side]`."""
    if shape in ARROWS:
        return np.rot90(shape_mask("arrow", side), ARROWS.index(shape))
    half = (side - 1) / 2
    axis = (np.arange(side, dtype=np.float32) - half) / (side / 2)  # -1..1
    y, x = axis[:, None], axis[None, :]
    distance = _DISTANCES[shape](y, x)  # negative inside, in half sides
    return (np.clip(0.5 - distance * side / 2, 0, 1) * 255).astype(np.uint8)


def _polygon(y: np.ndarray, x: np.ndarray, corners: list[tuple[float, float]]) -> np.ndarray:
    """Distance to a polygon of `(x, y)` corners, negative inside (even-odd rule)."""
    squared = np.full(np.broadcast_shapes(y.shape, x.shape), np.inf, np.float32)
    inside = np.zeros(squared.shape, bool)
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        dx, dy = x1 - x0, y1 - y0
        along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
        squared = np.minimum(squared, (x - x0 - along * dx) ** 2 + (y - y0 - along * dy) ** 2)
        if dy:
            crosses = (y0 > y) != (y1 > y)
            inside ^= crosses & (x < dx * (y - y0) / dy + x0)
    return np.where(inside, -1.0, 1.0) * np.sqrt(squared)


_ARROW = [(0, -0.95), (0.8, -0.1), (0.3, -0.1), (0.3, 0.9)]
_ARROW += [(-x, y) for x, y in reversed(_ARROW[1:])]


def _star(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    radii = [0.98, 0.42] * 5
    turns = [math.pi * i / 5 - math.pi / 2 for i in range(10)]
    corners = [(r * math.cos(t), r * math.sin(t) + 0.06) for r, t in zip(radii, turns, strict=True)]
    return _polygon(y, x, corners)


_DISTANCES = {
    "circle": lambda y, x: np.sqrt(x * x + y * y) - 0.95,
    "square": lambda y, x: np.maximum(abs(x), abs(y)) - 0.84,
    "triangle": lambda y, x: _polygon(y, x, [(0, -0.92), (0.98, 0.82), (-0.98, 0.82)]),
    "star": _star,
    "diamond": lambda y, x: (abs(x) + abs(y) - 0.98) / math.sqrt(2),
    "arrow": lambda y, x: _polygon(y, x, _ARROW),
    "cross": lambda y, x: np.minimum(
        np.maximum(abs(x) - 0.95, abs(y) - 0.30), np.maximum(abs(x) - 0.30, abs(y) - 0.95)
    ),
}

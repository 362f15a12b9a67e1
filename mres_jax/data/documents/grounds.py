"""Backgrounds: plain, textured and photographic; all procedural, no pictures are shipped.

`photo` is smooth noise between the colours of a place, with soft discs of light: what a photograph
looks like out of focus.
A ground is built between two shades that both stand out from the ink, so no texture can hide text.
Contrast is WCAG 2's ratio of relative luminances; ours is at least 4.5.
"""

import dataclasses
import functools
import random

import numpy as np
from PIL import Image

from mres_jax.geometry import Size

Colour = tuple[int, int, int]  # red, green, blue, 0..255

GROUNDS = ("plain", "striped", "checked", "shaded", "rough", "photo")
MIN_CONTRAST = 4.5
COLOURS: dict[str, tuple[Colour, ...]] = {
    "white": ((255, 255, 255), (252, 252, 249)),
    "grey": ((196, 199, 204), (184, 187, 191)),
    "black": ((16, 17, 21), (24, 26, 31)),
    "red": ((172, 22, 28), (158, 20, 26)),
    "yellow": ((255, 221, 64), (250, 212, 84)),
    "green": ((18, 96, 50), (172, 224, 170), (26, 102, 62)),
    "blue": ((18, 62, 146), (164, 204, 248), (24, 70, 132)),
    "purple": ((92, 38, 138), (206, 180, 240), (80, 32, 124)),
}
LOGO_COLOURS: dict[str, tuple[Colour, ...]] = {  # one dark, one bright
    "white": ((255, 255, 255),),
    "grey": ((96, 99, 104), (178, 181, 186)),
    "black": ((14, 15, 18),),
    "red": ((190, 24, 30), (240, 70, 64)),
    "yellow": ((255, 216, 40),),
    "green": ((20, 112, 52), (80, 200, 100)),
    "blue": ((24, 70, 170), (92, 156, 246)),
    "purple": ((104, 40, 160), (178, 116, 236)),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ground:
    """One background.

    Attributes:
      style: one of `GROUNDS`.
      colour: name of the dominant colour; None for a photo.
      base, other: the two shades it is made of.
      ink: colour of text on it.
      seed: of its noise.
      is_open: nothing is written on it, so a photo keeps its full range.
    """

    style: str
    colour: str | None
    base: Colour
    other: Colour
    ink: Colour
    seed: int
    is_open: bool = False

    @property
    def is_dark(self) -> bool:
        """True where text is light."""
        return self.ink[0] > 128


@functools.cache
def _linear_shares() -> np.ndarray:
    """Share of each sRGB value in the luminance, `float32 [256 3]`."""
    c = np.arange(256) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return (linear[:, None] * np.array([0.2126, 0.7152, 0.0722])).astype(np.float32)


def luminance(rgb: np.ndarray) -> np.ndarray:
    """WCAG relative luminance of sRGB `uint8 [... 3]`; black is 0, white 1."""
    shares = _linear_shares()
    rgb = np.asarray(rgb, np.uint8)
    return np.asarray(shares[rgb[..., 0], 0] + shares[rgb[..., 1], 1] + shares[rgb[..., 2], 2])


@functools.lru_cache(maxsize=4096)
def contrast(a: Colour, b: Colour) -> float:
    """WCAG contrast ratio of two colours, 1..21."""
    low, high = sorted((float(luminance(np.array(a))), float(luminance(np.array(b)))))
    return (high + 0.05) / (low + 0.05)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """Returns `a` with a share of `b`."""
    r, g, bl = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return r, g, bl


def ink_on(ground: Colour) -> Colour:
    """Returns near-black or white, whichever stands out more."""
    dark, light = (20, 22, 28), (255, 255, 255)
    return dark if contrast(dark, ground) >= contrast(light, ground) else light


def draw_ground(rng: random.Random, style: str, colour: str) -> Ground:
    """Draws shades and ink of a background."""
    seed = rng.getrandbits(32)
    if style == "photo":
        dark = rng.random() < 0.6
        if dark:  # typical and brightest, or darkest, shade: see _dim and _wash
            base, other, ink = (30, 32, 38), (108, 108, 108), (255, 255, 255)
        else:
            base, other, ink = (214, 214, 210), (173, 173, 173), (16, 18, 24)
        return Ground(style=style, colour=None, base=base, other=other, ink=ink, seed=seed)
    base = rng.choice(COLOURS[colour])
    ink = ink_on(base)
    strength = 0.11 if colour == "white" or ink[0] > 128 else 0.14
    other = mix(base, (0, 0, 0) if ink[0] < 128 else (255, 255, 255), strength)
    return Ground(style=style, colour=colour, base=base, other=other, ink=ink, seed=seed)


def paint_ground(ground: Ground, size: Size) -> np.ndarray:
    """Returns `uint8 [h w 3]`."""
    rng = np.random.Generator(np.random.PCG64(ground.seed))
    return _PAINTERS[ground.style](ground, size, rng)


def _plain(ground: Ground, size: Size, rng: np.random.Generator) -> np.ndarray:
    image = np.empty((*size, 3), np.uint8)
    image[:] = ground.base
    return image


def _along(line: np.ndarray, size: Size, direction: int) -> np.ndarray:
    """Spreads colours `[length 3]` over a picture: 0 left to right, 1 downwards, 2 diagonal."""
    if direction == 0:
        return np.broadcast_to(line[None, : size.width], (*size, 3)).copy()
    if direction == 1:
        return np.broadcast_to(line[: size.height, None], (*size, 3)).copy()
    windows = np.lib.stride_tricks.sliding_window_view(line, size.width, axis=0)
    return np.ascontiguousarray(windows[: size.height].transpose(0, 2, 1))


def _band(size: Size, rng: np.random.Generator) -> int:
    """Width of a stripe, px: wide enough to be seen in a picture of a quarter of the side."""
    return int(np.clip(min(size) / rng.uniform(4, 7), 5, 72))


def _striped(ground: Ground, size: Size, rng: np.random.Generator) -> np.ndarray:
    band = _band(size, rng)
    shades = np.array([ground.base, ground.other], np.uint8)
    index = (np.arange(sum(size)) + int(rng.integers(band))) // band % 2
    direction = int(rng.integers(3))
    if direction < 2 and max(size) > 2 * min(size):  # across the strip, else there is one stripe
        direction = int(size.height > size.width)
    return _along(shades[index], size, direction)


def _checked(ground: Ground, size: Size, rng: np.random.Generator) -> np.ndarray:
    band = _band(size, rng)
    shades = np.array([ground.base, ground.other], np.uint8)
    cols = np.arange(size.width) // band % 2
    rows = np.stack([shades[cols], shades[1 - cols]])
    return rows[np.arange(size.height) // band % 2]


def _shaded(ground: Ground, size: Size, rng: np.random.Generator) -> np.ndarray:
    direction = int(rng.integers(3))
    length = (size.width, size.height, sum(size))[direction]
    share = np.linspace(0, 1, length)[:, None]
    ends = np.array([ground.base, ground.other], np.float64)
    ends = ends[::-1] if rng.random() < 0.5 else ends
    line = np.round(ends[0] + (ends[1] - ends[0]) * share).astype(np.uint8)
    return _along(line, size, direction)


@functools.cache
def _grain() -> np.ndarray:
    """A fixed sheet of paper-like noise, `uint8 [1024 1024]`, 0..63; pictures cut from it."""
    rng = np.random.Generator(np.random.PCG64(7))
    sheet = np.zeros((1024, 1024), np.float32)
    for side, weight in ((1024, 0.5), (256, 0.7), (64, 0.8)):
        part = rng.normal(size=(side, side)).astype(np.float32)
        layer = Image.fromarray(part).resize((1024, 1024), Image.Resampling.BICUBIC)
        sheet += weight * np.asarray(layer)
    low, high = np.quantile(sheet, [0.01, 0.99])
    return np.clip((sheet - low) / (high - low) * 63, 0, 63).astype(np.uint8)


def _mirrored(side: int, start: int) -> np.ndarray:
    """Indices into 1024 that turn round at both ends, so that a long picture has no seam."""
    steps = (np.arange(side) + start) % 2048
    return np.minimum(steps, 2047 - steps)


def _rough(ground: Ground, size: Size, rng: np.random.Generator) -> np.ndarray:
    sheet = _grain()
    rows, cols = (_mirrored(side, int(rng.integers(1024))) for side in size)
    share = np.linspace(0, 1, 64)[:, None]
    base, other = (np.array(c, np.float64) for c in (ground.base, ground.other))
    palette = np.round(base + (other - base) * share).astype(np.uint8)
    return palette[sheet[rows][:, cols]]


_SCENES = (  # far, near, light: colours of some blurred places
    ((232, 168, 104), (58, 52, 78), (255, 222, 160)),  # dusk
    ((150, 176, 120), (46, 66, 36), (236, 240, 190)),  # forest
    ((186, 212, 230), (44, 92, 122), (250, 250, 245)),  # sea
    ((214, 190, 158), (92, 66, 46), (255, 236, 200)),  # room
    ((70, 84, 116), (22, 26, 38), (250, 200, 110)),  # night street
    ((196, 214, 236), (126, 128, 62), (255, 250, 220)),  # field
    ((204, 200, 192), (104, 100, 96), (246, 244, 240)),  # stone
    ((224, 176, 176), (110, 62, 84), (255, 230, 224)),  # blossom
)


def _photo(ground: Ground, size: Size, rng: np.random.Generator) -> np.ndarray:
    small = Size(*(max(6, -(-side // 4)) for side in size))
    scene = _scene(small, rng)
    if not ground.is_open:
        scene = _dim(scene) if ground.is_dark else _wash(scene)
    picture = Image.fromarray(scene).resize((size.width, size.height), Image.Resampling.BILINEAR)
    return np.array(picture)


def _scene(size: Size, rng: np.random.Generator) -> np.ndarray:
    """A far and a near colour, noise at three scales and discs of light, `uint8 [h w 3]`."""
    far, near, light = np.array(_SCENES[int(rng.integers(len(_SCENES)))], np.float32)
    rows = np.linspace(0, 1, size.height, dtype=np.float32)[:, None]
    cols = np.linspace(-1, 1, size.width, dtype=np.float32)[None, :]
    edge = rng.uniform(0.3, 0.7) + rng.uniform(-0.25, 0.25) * cols
    depth = 1 / (1 + np.exp((edge - rows) * rng.uniform(5, 20)))
    for cells, strength in ((3, 0.30), (8, 0.22), (20, 0.13)):
        depth += strength * _smooth_noise(size, cells, rng)
    depth = np.clip(depth, -0.15, 1.15)[..., None]
    scene = far + (near - far) * depth
    scene += 9 * np.stack([_smooth_noise(size, 4, rng) for _ in range(3)], axis=-1)
    for _ in range(int(rng.integers(3, 11))):
        _add_light(scene, light, rng)
    return np.clip(scene, 0, 255).astype(np.uint8)


def _smooth_noise(size: Size, cells: int, rng: np.random.Generator) -> np.ndarray:
    """Noise with `cells` bumps along the long side, about -2..2, `float32 [h w]`."""
    grid = rng.normal(size=tuple(max(2, round(cells * s / max(size))) for s in size))
    layer = Image.fromarray(grid.astype(np.float32))
    layer = layer.resize((size.width, size.height), Image.Resampling.BICUBIC)
    return np.asarray(layer)


def _add_light(scene: np.ndarray, hue: np.ndarray, rng: np.random.Generator) -> None:
    height, width = scene.shape[:2]
    radius = max(2.0, min(height, width) * rng.uniform(0.05, 0.16))
    y, x = rng.uniform(0, height), rng.uniform(0, width)
    top, left = max(0, int(y - radius - 1)), max(0, int(x - radius - 1))
    bottom, right = min(height, int(y + radius + 2)), min(width, int(x + radius + 2))
    rows, cols = np.ogrid[top:bottom, left:right]
    alpha = np.clip(radius - np.hypot(rows - y, cols - x), 0, 1.5) / 1.5 * rng.uniform(0.15, 0.55)
    patch = scene[top:bottom, left:right]
    patch += (hue - patch) * alpha[..., None].astype(np.float32)


def _dim(scene: np.ndarray) -> np.ndarray:
    """Darkens a scene until white text stands out everywhere."""
    while luminance(scene).max() > 0.15:
        scene = (scene * 0.86).astype(np.uint8)
    return (scene * 0.97).astype(np.uint8)


def _wash(scene: np.ndarray) -> np.ndarray:
    """Lightens a scene until black text stands out everywhere."""
    while luminance(scene).min() < 0.42:
        scene = (255 - (255 - scene.astype(np.float32)) * 0.86).astype(np.uint8)
    return scene


_PAINTERS = {
    "plain": _plain,
    "striped": _striped,
    "checked": _checked,
    "shaded": _shaded,
    "rough": _rough,
    "photo": _photo,
}

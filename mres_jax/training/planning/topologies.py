"""Names of slices and machines."""

import dataclasses
import itertools
import math
import re
from typing import Literal

from mres_jax.config import did_you_mean
from mres_jax.errors import ConfigError
from mres_jax.training.chips import CHIPS, Chip

GPUS = ("h100", "h200", "b200")
FLAT = ("v5e", "v6e")  # generations whose slices are rectangles
ALIASES = {"v5litepod": "v5e", "v5p": "v5p", "v6e": "v6e", "v7x": "tpu7x"}
RECTANGLES = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
SMALL_BOXES = ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4))  # larger ones have sides of fours
LARGEST = {"v4": (12, 16, 16), "v5p": (16, 16, 24), "tpu7x": (16, 24, 24)}
GPU_COUNTS = (1, 2, 4, *range(8, 1025, 8))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topology:
    """A slice of TPUs or a machine of GPUs.

    Attributes:
      generation: a name of `CHIPS`.
      shape: chips along each axis of the slice; one axis for GPUs.
    """

    generation: str
    shape: tuple[int, ...]

    @property
    def chip(self) -> Chip:
        """What it is made of."""
        return CHIPS[self.generation]

    @property
    def platform(self) -> Literal["tpu", "gpu"]:
        """Whose compiler it needs."""
        return "gpu" if self.generation in GPUS else "tpu"

    @property
    def chips(self) -> int:
        """How many."""
        return math.prod(self.shape)

    @property
    def devices(self) -> int:
        """That jax sees."""
        return self.chips * self.chip.devices

    @property
    def hosts(self) -> int:
        """Machines that the chips sit in; up to eight flat ones sit in one."""
        if self.generation in FLAT and self.chips <= 8:
            return 1
        return -(-self.chips // self.chip.per_host)

    @property
    def name(self) -> str:
        """As the compiler takes it, `v5e:4x4`, or `gpu:h200x8`."""
        if self.platform == "gpu":
            return f"gpu:{self.generation}x{self.chips}"
        return f"{self.generation}:{'x'.join(map(str, self.shape))}"

    @property
    def slice_name(self) -> str:
        """As the cloud sells it, `v5litepod-16`."""
        if self.platform == "gpu":
            return self.name
        prefix = {"v5e": "v5litepod"}.get(self.generation, self.generation)
        return f"{prefix}-{self.chips * self.chip.cores}"


def parse_topology(text: str) -> Topology:
    """Returns a topology by its name.

    Args:
      text: `v5e:4x4`, `v5e-16`, `v5litepod-16`, `v5p:2x2x4`, `v5p-32` (the cloud counts two cores
        a chip), `gpu:h200x8`.

    Raises:
      ConfigError: there is none of that name; with the nearest.

    Example:
      >>> parse_topology("v5litepod-16").name, parse_topology("v5p-128").name
      ('v5e:4x4', 'v5p:4x4x4')
    """
    known = _by_name()
    name = text.strip().lower()
    if name in known:
        return known[name]
    hint = _nearest(name) or did_you_mean(name, known)
    raise ConfigError(
        f"plan: no topology {text!r}.{hint} Write a slice as v5e:4x4 or v5litepod-16 (generations "
        f"{', '.join(LARGEST | dict.fromkeys(FLAT))}), or a machine as gpu:h200x8 "
        f"({', '.join(GPUS)})."
    )


def _nearest(name: str) -> str:
    """Of the same generation, the one with the number of chips that is nearest."""
    word, *numbers = re.split(r"[:\-x]", name.removeprefix("gpu:"))
    generation = ALIASES.get(word, word)
    if generation not in CHIPS or not numbers or not all(n.isdigit() for n in numbers):
        return ""
    chips = math.prod(int(n) for n in numbers)
    if "-" in name:
        chips /= CHIPS[generation].cores
    same = [t for t in all_topologies() if t.generation == generation]
    best = min(same, key=lambda t: abs(t.chips - chips))
    also = "" if best.slice_name == best.name else f" ({best.slice_name})"
    return f" The nearest is {best.name}{also}."


def _by_name() -> dict[str, Topology]:
    """Every name that is understood."""
    names: dict[str, Topology] = {}
    for topology in all_topologies():
        names[topology.name] = topology
        cores = topology.chips * topology.chip.cores
        for word in {topology.generation, *_words(topology.generation)}:
            # of shapes with as many chips, the most cubic, which is what the cloud gives
            names.setdefault(f"{word}-{cores}", topology)
    return names


def _words(generation: str) -> list[str]:
    return [word for word, meant in ALIASES.items() if meant == generation]


def all_topologies() -> list[Topology]:
    """Every slice and machine, small ones first, of as many chips the most cubic first."""
    shapes = [(name, shape) for name in FLAT for shape in RECTANGLES]
    for name, largest in LARGEST.items():
        sides = [range(4, side + 1, 4) for side in largest]
        cubes = [shape for shape in itertools.product(*sides) if tuple(sorted(shape)) == shape]
        shapes += [(name, shape) for shape in (*SMALL_BOXES, *cubes)]
    shapes += [(name, (count,)) for name in GPUS for count in GPU_COUNTS]
    found = [Topology(generation=name, shape=shape) for name, shape in shapes]
    return sorted(found, key=lambda t: (t.chips, sum(t.shape)))


def larger(topology: Topology) -> list[Topology]:
    """Slices of the same generation with more chips, smallest first."""
    return [other for other in _same(topology) if other.chips > topology.chips]


def smaller(topology: Topology) -> list[Topology]:
    """Slices of the same generation with fewer chips, smallest first."""
    return [other for other in _same(topology) if other.chips < topology.chips]


def _same(topology: Topology) -> list[Topology]:
    return [other for other in all_topologies() if other.generation == topology.generation]

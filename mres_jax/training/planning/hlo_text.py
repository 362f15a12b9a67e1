"""The text of a compiled program, line by line."""

import dataclasses
import math
import re
from collections.abc import Iterator

BYTES = {
    **dict.fromkeys(("pred", "s8", "u8", "f8e4m3fn", "f8e5m2"), 1),
    **dict.fromkeys(("s4", "u4"), 0.5),
    **dict.fromkeys(("bf16", "f16", "s16", "u16"), 2),
    **dict.fromkeys(("f32", "s32", "u32"), 4),
    **dict.fromkeys(("f64", "s64", "u64", "c64"), 8),
}
_SHAPE = re.compile(r"\b([a-z]+\d*[a-z\d]*)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{\s*(?:/\*.*\*/)?$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([a-z][\w\-]*)\((.*)$")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|(?:branch|called|true|false)_computations?)="
    r"(?:\{([^}]*)\}|(%?[\w.\-]+))"
)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    shape: str
    opcode: str
    rest: str  # operands and attributes
    is_root: bool

    @property
    def operands(self) -> list[str]:
        """Names of its operands."""
        depth, end = 1, len(self.rest)
        for place, letter in enumerate(self.rest):
            depth += {"(": 1, ")": -1}.get(letter, 0)
            if depth == 0:
                end = place
                break
        return re.findall(r"%([\w.\-]+)", self.rest[:end])

    @property
    def called(self) -> list[str]:
        """Computations that it runs, but for the condition of a loop."""
        found = [listed or single for listed, single in _CALLED.findall(self.rest)]
        return [name.strip().lstrip("%") for group in found for name in group.split(",")]


def read_text(text: str) -> tuple[str, int, dict[str, list[Instruction]]]:
    """Returns the name of the entry, the devices of the program, and its computations by name."""
    computations: dict[str, list[Instruction]] = {}
    entry, devices, body = "", 1, None
    for line in text.splitlines():
        if line.startswith("HloModule"):
            found = re.search(r"num_partitions=(\d+)", line)
            devices = int(found[1]) if found else 1
        elif (head := _COMPUTATION.match(line)) and not line.startswith(" "):
            body = computations.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif body is not None and (found := _INSTRUCTION.match(line)):
            body.append(Instruction(found[2], found[3], found[4], found[5], bool(found[1])))
    return entry, devices, computations


def shape_bytes(text: str) -> float:
    """Bytes of a shape, or of all shapes of a tuple.

    Example:
      >>> shape_bytes("(bf16[2,3]{1,0}, f32[])")
      16.0
    """
    return float(sum(BYTES[kind] * math.prod(sizes) for kind, sizes in shapes_in(text)))


def shapes_in(text: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    for kind, sizes in _SHAPE.findall(text):
        if kind in BYTES:
            yield kind, tuple(int(size) for size in sizes.split(",") if size)

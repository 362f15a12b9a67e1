"""What a compiled program does, read from its text: products, memory traffic, exchanges.

XLA's own cost analysis counts the body of a loop once, so a scan over layers looks like one layer.
Here everything in a body counts as often as the loop turns.
"""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Mapping

import numpy as np

from mres_jax.training.planning.hlo_text import (
    BYTES,
    Instruction,
    read_text,
    shape_bytes,
    shapes_in,
)

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
)
FREE = (  # move nothing
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "while",
    "conditional",
    "call",
    "after-all",
    "partition-id",
    "replica-id",
    "optimization-barrier",
    "async-start",
    "async-update",
    "async-done",
)


_BEGIN = 'custom_call_target="AsyncCollectiveStart"'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What a device does in one run of a program.

    Attributes:
      flops: of matrix products and convolutions, 2 for a multiply-add; kernels are not in it.
      memory_bytes: read and written by every instruction outside fusions.
      sent: bytes that a device sends in rings, by kind of exchange and first group of devices.
      kernels: runs of hand-written kernels, by name.
    """

    flops: float
    memory_bytes: float
    sent: Mapping[tuple[str, tuple[int, ...]], float]
    kernels: Mapping[str, float]


def read_work(text: str, *, turns: int | None = None) -> Work:
    """Returns the work in the text of a compiled program, loops unrolled.

    Args:
      text: of the program.
      turns: of loops whose number of turns is not written in it, since it depends on data.

    Raises:
      ValueError: a loop whose number of turns is not written in it.
    """
    program = _Program(text, turns)
    flops = memory = 0.0
    sent: dict[tuple[str, tuple[int, ...]], float] = collections.defaultdict(float)
    kernels: dict[str, float] = collections.defaultdict(float)
    for name, times in program.times().items():
        for instruction in program.computations[name]:
            flops += times * program.flops(name, instruction)
            kind = instruction.opcode.removesuffix("-start")
            if kind in COLLECTIVES and not program.is_counted_before(name, instruction):
                if name in program.fused:
                    memory += times * program.exchange_traffic(name, instruction)
                group = _first_group(instruction, program.num_devices)
                if len(group) > 1:
                    size = _sent_bytes(kind, len(group), instruction)
                    if program.is_scattered(name, kind):
                        kind, size = "reduce-scatter", size / 2
                    sent[kind, group] += times * size
            if instruction.opcode == "custom-call":
                target = re.search(r'custom_call_target="([^"]*)"', instruction.rest)
                if target and "custom_call" in target[1]:
                    kernels[_kernel_name(instruction)] += times
            if name not in program.fused:
                memory += times * program.traffic(name, instruction)
    return Work(flops=flops, memory_bytes=memory, sent=dict(sent), kernels=dict(kernels))


class _Program:
    """Computations of a module by name."""

    def __init__(self, text: str, turns: int | None):
        self.turns = turns
        self.entry, self.num_devices, self.computations = read_text(text)
        self.shapes = {
            name: {i.name: i.shape for i in body} for name, body in self.computations.items()
        }
        self.fused = {
            called
            for body in self.computations.values()
            for i in body
            if i.opcode in ("fusion", "reduce", "scatter", "sort", "map", "reduce-window")
            or i.opcode.startswith(COLLECTIVES)
            for called in i.called
        }
        self.begun_in: dict[str, set[str]] = collections.defaultdict(set)
        for name in self.fused & self.computations.keys():
            body = self.computations[name]
            if any(_BEGIN in i.rest for i in body):
                for i in body:
                    self.begun_in[_channel(i)].add(name)

    def is_counted_before(self, computation: str, exchange: Instruction) -> bool:
        """Whether an exchange is a later piece of one that XLA spread over several fusions.

        The TPU's compiler runs a large exchange beside several products, and writes it down whole,
        on one channel, in the fusion where it begins and in that of each product.
        """
        begun_in = self.begun_in.get(_channel(exchange), ())
        return computation in self.fused and bool(begun_in) and computation not in begun_in

    def exchange_traffic(self, computation: str, exchange: Instruction) -> float:
        """Bytes read and written by an exchange in a fusion, which its fusions do not count."""
        shapes = self.shapes[computation]
        inputs = sum(shape_bytes(shapes.get(name, "")) for name in exchange.operands)
        kept_inside = self.is_scattered(computation, exchange.opcode)  # its fusion counts the shard
        return inputs + (0.0 if kept_inside else shape_bytes(exchange.shape))

    def is_scattered(self, computation: str, kind: str) -> bool:
        """Whether the devices of an all-reduce keep a shard each: half of it is left out.

        The TPU's compiler writes a reduce-scatter so: a fusion of the sum and of the slice.
        """
        return kind == "all-reduce" and computation.startswith("all-reduce-scatter")

    def times(self) -> dict[str, float]:
        """How often each computation runs in one run of the program."""
        runs: dict[str, float] = collections.defaultdict(float)
        for name in self._callers_first():
            runs[name] += name == self.entry
            for instruction in self.computations[name]:
                trips = self._trips(instruction) if instruction.opcode == "while" else 1
                called = instruction.called
                if instruction.opcode == "conditional":
                    called = [max(called, key=self._weight)]  # the dearer branch
                for other in called:
                    runs[other] += runs[name] * trips
        return {name: count for name, count in runs.items() if count}

    def _callers_first(self) -> list[str]:
        order: list[str] = []
        seen: set[str] = set()

        def visit(name: str) -> None:
            if name in seen or name not in self.computations:
                return
            seen.add(name)
            for instruction in self.computations[name]:
                for other in instruction.called:
                    visit(other)
            order.append(name)

        visit(self.entry)
        return order[::-1]

    @functools.cache  # noqa: B019, lives as long as the text
    def _weight(self, name: str) -> float:
        """FLOPs and traffic of a branch and of what it calls, once each."""
        body = self.computations.get(name, [])
        own = sum(self.flops(name, i) + self.traffic(name, i) for i in body)
        return own + sum(self._weight(other) for i in body for other in i.called)

    def _trips(self, loop: Instruction) -> int:
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.rest)
        if known:
            return int(known[1])
        limits, counters = [], []
        for name in self._reached(_named(loop, "condition")):
            for instruction in self.computations[name]:
                if instruction.opcode == "constant":
                    limits += _integers(instruction)
                elif instruction.opcode == "get-tuple-element":
                    counters.append(_index(instruction))
        if len(limits) != 1:
            if self.turns is not None:
                return self.turns
            raise ValueError(f"{loop.name}: how often this loop turns is not written in it.")
        step = self._step(_named(loop, "body"), counters[0]) if len(counters) == 1 else 1
        return -(-limits[0] // step)

    def _step(self, body: str, counter: int) -> int:
        """What a turn adds to a counter of a loop: several where XLA has unrolled it."""
        by_name = {i.name: i for i in self.computations.get(body, [])}
        root = next((i for i in by_name.values() if i.is_root and i.opcode == "tuple"), None)
        at = by_name.get(root.operands[counter]) if root else None
        step = 0
        while at is not None and at.opcode == "add":
            operands = [by_name.get(name) for name in at.operands]
            step += sum(sum(_integers(i)) for i in operands if i and i.opcode == "constant")
            at = next((i for i in operands if i and i.opcode != "constant"), None)
        is_counted = at is not None and at.opcode == "get-tuple-element" and _index(at) == counter
        return step if is_counted and step else 1

    def _reached(self, name: str) -> list[str]:
        body = self.computations.get(name)
        if body is None:
            return []
        return [name, *(n for i in body for other in i.called for n in self._reached(other))]

    def flops(self, computation: str, instruction: Instruction) -> float:
        """Of a product or convolution, else 0."""
        if instruction.opcode not in ("dot", "convolution"):
            return 0.0
        shapes = self.shapes[computation]
        operands = [next(shapes_in(shapes[name]))[1] for name in instruction.operands[:2]]
        out = math.prod(next(shapes_in(instruction.shape))[1])
        if instruction.opcode == "dot":
            found = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.rest)
            axes = [int(axis) for axis in (found[1] if found else "").split(",") if axis]
            return 2.0 * out * math.prod(operands[0][axis] for axis in axes)
        labels = re.search(r"dim_labels=(\w+)_(\w+)->", instruction.rest)
        assert labels is not None, instruction.rest
        kernel = math.prod(operands[1]) / operands[1][labels[2].index("o")]
        return 2.0 * out * kernel / _spread_batches(instruction)

    def traffic(self, computation: str, instruction: Instruction) -> float:
        """Bytes read and written; of a slice of an array, the slice alone."""
        opcode = instruction.opcode
        if opcode in FREE or opcode.endswith("-done"):
            return 0.0
        shapes = self.shapes[computation]
        out = shape_bytes(instruction.shape)
        inputs = [shape_bytes(shapes.get(name, "")) for name in instruction.operands]
        if opcode in ("dynamic-slice", "slice", "gather"):
            return 2 * out
        if opcode == "dynamic-update-slice":
            return 2 * inputs[1]
        if opcode == "custom-call":
            told = re.search(r'"bytes_accessed":"(\d+)"', instruction.rest)
            if told:  # a kernel that reads a part of what it is given
                return float(told[1])
        if opcode == "fusion":
            (called,) = instruction.called[:1]
            read, written = self._fused_traffic(called)
            inputs = [min(size, read.get(place, size)) for place, size in enumerate(inputs)]
            out = min(out, written) if written is not None else out
        return out + sum(inputs)

    @functools.cache  # noqa: B019, lives as long as the text
    def _fused_traffic(self, name: str) -> tuple[dict[int, float], float | None]:
        """Bytes of each parameter that is only sliced or written into, and of what is written.

        Fusions within it are looked into: a product of a layer of stacked weights is one.
        """
        body = self.computations.get(name, [])
        places = {i.name: int(i.rest.split(")")[0]) for i in body if i.opcode == "parameter"}
        exchanged = {i.name for i in body if i.opcode in COLLECTIVES}
        used: dict[int, float] = collections.defaultdict(float)
        whole: set[int] = set()
        written: float | None = None
        for i in body:
            inner = self._fused_traffic(i.called[0]) if i.opcode == "fusion" else ({}, None)
            hands_on = i.opcode in COLLECTIVES or (i.is_root and _is_tuple(i))
            for order, operand in enumerate(i.operands):
                if operand not in places:
                    continue
                if i.opcode in ("dynamic-slice", "slice", "gather") and order == 0:
                    used[places[operand]] += shape_bytes(i.shape)
                elif hands_on or (i.opcode == "dynamic-update-slice" and order == 0):
                    used[places[operand]] += 0.0
                elif order in inner[0]:
                    used[places[operand]] += inner[0][order]
                else:
                    whole.add(places[operand])
            if i.is_root and i.opcode == "dynamic-update-slice":
                written = shape_bytes(self.shapes[name].get(i.operands[1], ""))
            elif i.is_root and i.opcode == "fusion":
                written = inner[1]
            elif i.is_root and _is_tuple(i):
                made = [each for each in i.operands if each not in places.keys() | exchanged]
                written = sum(shape_bytes(self.shapes[name].get(each, "")) for each in made)
        return {place: size for place, size in used.items() if place not in whole}, written


def _is_tuple(root: Instruction) -> bool:
    """Whether it hands its operands on: a tuple, or an end of an exchange that runs beside."""
    return root.opcode == "tuple" or 'custom_call_target="AsyncCollective' in root.rest


def _named(loop: Instruction, part: str) -> str:
    """The computation that is a loop's `condition` or `body`."""
    found = re.search(rf"{part}=%?([\w.\-]+)", loop.rest)
    return found[1] if found else ""


def _integers(constant: Instruction) -> list[int]:
    """Its value, if it is one whole number that is not negative."""
    return [int(found) for found in re.findall(r"^(\d+)\)", constant.rest)]


def _index(element: Instruction) -> int:
    """Which element of a tuple is taken."""
    found = re.search(r"index=(\d+)", element.rest)
    return int(found[1]) if found else -1


def _channel(instruction: Instruction) -> str:
    """Of an exchange; "" if it has none."""
    found = re.search(r"channel_id=(\d+)", instruction.rest)
    return found[1] if found and instruction.opcode in COLLECTIVES else ""


def _spread_batches(instruction: Instruction) -> float:
    """Batches that XLA wrote as a spatial axis with holes, where each meets itself alone."""
    found = re.search(r"window=\{size=([\dx]+)(.*?)\}", instruction.rest)
    if found is None or "lhs_dilate" not in found[2]:
        return 1.0
    dilated = re.search(r"lhs_dilate=([\dx]+)", found[2])
    pairs = zip(found[1].split("x"), (dilated[1] if dilated else "").split("x"), strict=False)
    return math.prod(int(size) for size, hole in pairs if int(size) > 1 and size == hole)


def _first_group(instruction: Instruction, num_devices: int) -> tuple[int, ...]:
    """Devices that exchange with each other, the first such group."""
    text = instruction.rest
    pair = re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", text)
    if pair:
        return int(pair[1]), int(pair[2])
    named = re.search(r"replica_groups=mesh\[([^\]]*)\] *\{([^}]*)\}", text)
    if named:
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
        ids = np.arange(num_devices).reshape(tuple(sizes.values()))
        taken = tuple(slice(None) if f"'{name}'" in named[2] else 0 for name in sizes)
        return tuple(ids[taken].ravel().tolist())
    short = re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text)
    if short:
        ids = np.arange(num_devices).reshape([int(n) for n in short[3].split(",")])
        if short[4]:
            ids = ids.transpose([int(n) for n in short[4].split(",")])
        return tuple(ids.reshape(int(short[1]), int(short[2]))[0].tolist())
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", text)
    return tuple(int(n) for n in listed[1].split(",")) if listed else tuple(range(num_devices))


def _sent_bytes(kind: str, size: int, instruction: Instruction) -> float:
    """Bytes that each device sends in a ring of `size`."""
    starts = instruction.opcode.endswith("-start")
    shapes = [  # where it only starts there are scalars behind the results, of its own
        BYTES[k] * math.prod(n) for k, n in shapes_in(instruction.shape) if n or not starts
    ]
    if not shapes:
        return 0.0
    share = (size - 1) / size
    if starts and kind != "all-reduce":  # operands come first
        half = len(shapes) // 2 or 1
        shapes = shapes[half : 2 * half] or shapes
    total = sum(shapes)
    if kind == "all-reduce":
        return 2 * share * total
    if kind == "reduce-scatter":
        return (size - 1) * total
    return total if kind == "collective-permute" else share * total


def _kernel_name(instruction: Instruction) -> str:
    found = re.search(r'op_name="[^"]*?([\w]+)"', instruction.rest)
    return found[1] if found else instruction.name

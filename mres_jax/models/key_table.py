"""Which file tensor is which parameter: tables of keys, and what a file has too much or too little.

A table row pairs a key of the Hugging Face file with one of our parameters and says how to turn one
into the other. Our layers are stacked on a leading axis; a row whose key has `{i}` stands for one
file tensor per layer. Every transform has an exact inverse, so files go out as they came in.
"""

import dataclasses
import difflib
import math
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from flax import nnx

from mres_jax.errors import CheckpointError
from mres_jax.models.safetensors_files import FLOATS, Stored, open_tensors

# A module, or an `nnx.State` of parameters. flax 0.12 annotates the latter in a way that run-time
# type checkers warn about, so it is not spelled out.
Skeleton = Any
Parameters = Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Key:
    """One row: a key of the file, our parameter, and how they correspond.

    Attributes:
      hf: key in the file; `{i}` is the layer.
      ours: dotted path of our parameter.
      transform: `copy`; `transpose`, from [out, *tail] to a kernel [prod(tail), out]; or
        `transpose_pixels`, from [out, prod(tail)] with the channels of a pixel side by side, the
        last axis of `tail`, to a kernel with one channel after the other.
      tail: the axes after the first of a tensor in the file, where there is more than one.
    """

    hf: str
    ours: str
    transform: Literal["copy", "transpose", "transpose_pixels"] = "copy"
    tail: tuple[int, ...] = ()

    @property
    def stacked(self) -> bool:
        """Whether the row stands for one file tensor per layer."""
        return "{i}" in self.hf

    def hf_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Extents in the file of a parameter (of one layer) with extents `shape`."""
        if self.transform == "copy":
            return shape
        rows, out = shape
        if self.tail and math.prod(self.tail) != rows:
            raise CheckpointError(
                f"{self.ours}: {rows} rows cannot become {self.tail} of {self.hf}."
            )
        if self.transform == "transpose_pixels":
            return out, rows
        return (out, *(self.tail or (rows,)))

    def to_ours(self, tensor: np.ndarray) -> np.ndarray:
        """From the file's layout to ours, one layer."""
        if self.transform == "copy":
            return tensor
        if self.transform == "transpose_pixels":
            tensor = np.moveaxis(tensor.reshape(len(tensor), *self.tail), -1, 1)
        return tensor.reshape(len(tensor), -1).T

    def to_hf(self, array: np.ndarray) -> np.ndarray:
        """From our layout to the file's, one layer."""
        if self.transform == "copy":
            return array
        tensor = array.T
        if self.transform == "transpose_pixels":
            *pixels, channels = self.tail
            tensor = np.moveaxis(tensor.reshape(len(tensor), channels, *pixels), 1, -1)
        return tensor.reshape(self.hf_shape(array.shape))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beside:
    """A part whose tensors may lie in a folder of the model's directory instead.

    Attributes:
      name: what messages call it.
      folder: name of the folder, which holds safetensors.
      prefix: of the part's rows.
      renames: from the folder's naming to the rows' without their prefix.
      ignored: patterns of keys in the folder that are not of the part.
    """

    name: str
    folder: str
    prefix: str
    renames: Sequence[tuple[str, str]] = ()
    ignored: Sequence[str] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeyTable:
    """All rows of a family.

    Rows whose parameter a configuration does not have (the head of a model with tied embeddings)
    are left out for that configuration.

    Attributes:
      keys: the rows, in the naming that is written.
      renames: (pattern, replacement) pairs that turn other namings into the rows' one.
      ignored: patterns of keys that hold no parameter, such as rotary tables.
      tied: file key -> file key of the same tensor, for weights that a file may repeat.
      partial: whether a file may hold more than is asked for.
      modules: (pattern, replacement) pairs that turn the rows' naming into that of the modules of
        `transformers`, which adapters of `peft` are named after.
      beside: parts that may lie in folders of their own.
    """

    keys: Sequence[Key]
    renames: Sequence[tuple[str, str]] = ()
    ignored: Sequence[str] = ()
    tied: Mapping[str, str] = dataclasses.field(default_factory=dict)
    partial: bool = False
    modules: Sequence[tuple[str, str]] = ()
    beside: Sequence[Beside] = ()

    def module(self, name: str) -> str:
        """The name of a key among the modules of `transformers`."""
        for pattern, replacement in self.modules:
            name = re.sub(pattern, replacement, name)
        return name

    def canonical(self, name: str) -> str:
        """The rows' name of a key."""
        for pattern, replacement in self.renames:
            name = re.sub(pattern, replacement, name)
        return name


def flatten(skeleton: Skeleton) -> dict[str, Any]:
    """Parameters by dotted path: arrays, or their shapes where the model is abstract."""
    return {".".join(map(str, path)): leaf.get_value() for path, leaf in variables(skeleton)}


def variables(skeleton: Skeleton) -> list[tuple[tuple[Any, ...], nnx.Variable[Any]]]:
    """Parameters with their paths."""
    state = nnx.state(skeleton, nnx.Param) if isinstance(skeleton, nnx.Module) else skeleton
    return list(nnx.to_flat_state(state))


def match(
    directory: pathlib.Path, leaves: Mapping[str, Any], table: KeyTable
) -> dict[str, tuple[Key, list[Stored]]]:
    """Returns, for each parameter, its row and its file tensors in layer order.

    Raises:
      CheckpointError: see `load_weights`.
    """
    tensors, clashes = _by_canonical_name(open_tensors(directory), table)
    expected = expected_shapes(leaves, table)
    for part in table.beside:
        tensors |= _lying_beside(directory, part, tensors, expected)
    repeated = [
        name
        for name, original in table.tied.items()
        if name in tensors and name not in expected and original in expected
    ]
    _check_tied(directory, tensors, {name: table.tied[name] for name in repeated})
    missing = [name for name in expected if name not in tensors]
    unexpected = [
        tensors[name].name for name in tensors if name not in expected and name not in repeated
    ]
    problems = [
        *clashes,
        *_missing(missing, unexpected),
        *_unexpected([] if table.partial else unexpected, missing),
        *_mismatched({n: (tensors[n], s) for n, s in expected.items() if n in tensors}),
    ]
    if problems:
        raise CheckpointError(f"{directory}: {'; '.join(problems)}.")
    return {
        key.ours: (key, [tensors[name] for name in layer_names(key, leaves[key.ours])])
        for key in table.keys
        if key.ours in leaves
    }


def _lying_beside(
    directory: pathlib.Path, part: Beside, tensors: Mapping[str, Stored], expected: Iterable[str]
) -> dict[str, Stored]:
    """Tensors of a part that the main files lack, by the rows' names."""
    needed = [name for name in expected if name.startswith(part.prefix)]
    if not needed or any(name in tensors for name in needed):
        return {}
    folder = directory / part.folder
    if not folder.is_dir():
        raise CheckpointError(
            f"{directory}: {part.name} is missing: none of its {len(needed)} tensors "
            f"({part.prefix}...) is in the files. Put its safetensors into {folder}."
        )
    table = KeyTable(keys=(), renames=part.renames, ignored=part.ignored)
    found, clashes = _by_canonical_name(open_tensors(folder), table)
    if clashes:
        raise CheckpointError(f"{folder}: {'; '.join(clashes)}.")
    return {part.prefix + name: tensor for name, tensor in found.items()}


def expected_shapes(leaves: Mapping[str, Any], table: KeyTable) -> dict[str, tuple[int, ...]]:
    """File keys of a model with these parameters, and their extents."""
    rows = {key.ours for key in table.keys}
    orphans = [path for path in leaves if path not in rows]
    if orphans:
        raise CheckpointError(f"no file key is known for {', '.join(orphans)}.")
    return {
        name: key.hf_shape(tuple(leaves[key.ours].shape[1 if key.stacked else 0 :]))
        for key in table.keys
        if key.ours in leaves
        for name in layer_names(key, leaves[key.ours])
    }


def layer_names(key: Key, leaf: Any) -> list[str]:
    """File keys of a row, in layer order."""
    if not key.stacked:
        return [key.hf]
    return [key.hf.replace("{i}", str(i)) for i in range(leaf.shape[0])]


def _by_canonical_name(
    tensors: Mapping[str, Stored], table: KeyTable
) -> tuple[dict[str, Stored], list[str]]:
    ignored = [re.compile(pattern) for pattern in table.ignored]
    found: dict[str, Stored] = {}
    clashes = []
    for name, tensor in tensors.items():
        if any(pattern.search(name) for pattern in ignored):
            continue
        canonical = table.canonical(name)
        if canonical in found:
            clashes.append(f"{found[canonical].name} and {name} are the same parameter")
        found[canonical] = tensor
    return found, clashes


def _check_tied(
    directory: pathlib.Path, tensors: Mapping[str, Stored], tied: Mapping[str, str]
) -> None:
    for name, original in tied.items():
        if original not in tensors:
            continue  # reported as missing
        left, right = tensors[name], tensors[original]
        if not _same(left, right):
            raise CheckpointError(
                f"{directory}: config.json ties {left.name} to {right.name}, but their values "
                "differ. Set tie_word_embeddings to false if the head was trained apart."
            )


def _same(left: Stored, right: Stored) -> bool:
    if left.shape != right.shape:
        return False
    if left.dtype == right.dtype:
        return np.array_equal(left.data, right.data)
    return {left.dtype, right.dtype} <= FLOATS.keys() and np.array_equal(left.read(), right.read())


def _missing(missing: Sequence[str], unexpected: Sequence[str]) -> list[str]:
    if not missing:
        return []
    hints = _hints(missing, unexpected, "the file has")
    return [f"{len(missing)} missing: {', '.join(hints)}"]


def _unexpected(unexpected: Sequence[str], missing: Sequence[str]) -> list[str]:
    if not unexpected:
        return []
    hints = _hints(unexpected, missing, "did you mean")
    return [f"{len(unexpected)} unexpected: {', '.join(hints)}"]


def _hints(names: Sequence[str], candidates: Sequence[str], words: str) -> list[str]:
    grouped, patterns = group_layers(names), list(group_layers(candidates))
    hints = []
    for pattern, text in grouped.items():
        near = [
            p for p in difflib.get_close_matches(pattern, patterns, n=2, cutoff=0.8) if p != pattern
        ]
        hints.append(f"{text} ({words} {near[0].replace('{}', '{i}')}?)" if near else text)
    return hints


def group_layers(names: Iterable[str]) -> dict[str, str]:
    """Names that differ in the layer only, as one: pattern -> `model.layers.{0..3,7}.weight`."""
    groups: dict[str, list[int]] = {}
    for name in names:
        numbers = re.findall(r"(?<=\.)\d+(?=\.)", name)
        pattern = re.sub(r"(?<=\.)\d+(?=\.)", "{}", name, count=1)
        groups.setdefault(pattern, []).extend(int(n) for n in numbers[:1])
    return {pattern: pattern.replace("{}", _ranges(ids)) for pattern, ids in groups.items()}


def _ranges(numbers: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    text = ",".join(f"{a}..{b}" if a != b else str(a) for a, b in runs)
    return text if len(numbers) == 1 else f"{{{text}}}"


def _mismatched(pairs: Mapping[str, tuple[Stored, tuple[int, ...]]]) -> list[str]:
    problems = []
    shapes = [
        f"{stored.name} is {stored.shape}, the configuration says {shape}"
        for stored, shape in pairs.values()
        if stored.shape != shape
    ]
    if shapes:
        problems.append(f"{len(shapes)} of the wrong shape: {', '.join(shapes)}")
    types = [f"{s.name} ({s.dtype})" for s, _ in pairs.values() if s.dtype not in FLOATS]
    if types:
        problems.append(
            f"{len(types)} of a type that is no parameter (have {', '.join(FLOATS)}; quantised "
            f"weights are not read): {', '.join(types)}"
        )
    return problems

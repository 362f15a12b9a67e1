"""Safetensors on disk, without torch: a directory of tensors in, one or several shards out.

Reading memory-maps the files and copies one tensor at a time; writing holds one parameter.
"""

import collections
import dataclasses
import json
import math
import pathlib
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from mres_jax.errors import CheckpointError
from mres_jax.models.files import check_space, read_json, write_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = {  # what a parameter may be stored as
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(jnp.bfloat16),
}
_CODES = {dtype: code for code, dtype in FLOATS.items()}
# What `torch.save` writes: unpickling it runs whatever its author wanted.
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_STRIP = 32  # columns
_ALIGNMENT = 64  # bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stored:
    """One tensor of an opened directory.

    Attributes:
      name: key in its file.
      shape: extents.
      dtype: safetensors code, for example `BF16`.
      file: which shard holds it.
      data: its bytes, memory-mapped.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    file: str
    data: np.ndarray = dataclasses.field(repr=False)

    def read(self) -> np.ndarray:
        """Returns the tensor, a view of the file: copy what outlives it. Floats only."""
        return self.data.view(FLOATS[self.dtype]).reshape(self.shape)


def open_tensors(directory: pathlib.Path) -> dict[str, Stored]:
    """Opens every shard of a model directory and returns its tensors by name.

    Raises:
      CheckpointError: no safetensors, pickled weights only, an index that names a missing shard, a
        path outside the directory or a tensor that its shard lacks, a damaged file.
    """
    index = directory / INDEX
    single = directory / SINGLE
    if index.is_file() and single.is_file():
        raise CheckpointError(f"{directory}: holds {SINGLE} and {INDEX}; remove the stale one.")
    if index.is_file():
        return _open_sharded(directory, _weight_map(index))
    if not single.is_file():
        single = _only_file(directory)
    return {tensor.name: tensor for tensor in _open_file(single)}


def _only_file(directory: pathlib.Path) -> pathlib.Path:
    names = sorted(p.name for p in directory.iterdir() if p.is_file())
    found = [name for name in names if name.endswith(".safetensors")]
    if len(found) == 1:
        return directory / found[0]
    if found:
        raise CheckpointError(
            f"{directory}: {len(found)} safetensors files ({found[0]}, ...) but no {INDEX} that "
            "says which tensors belong together; fetch it from where the shards came from."
        )
    pickles = [name for name in names if name.endswith(PICKLES)]
    if pickles:
        raise CheckpointError(
            f"{directory}: weights only as {', '.join(pickles)}; a pickle runs code when it is "
            "read and is never opened. Save them as safetensors where you trust them."
        )
    raise CheckpointError(f"{directory}: no {SINGLE} and no {INDEX}.")


def _weight_map(index: pathlib.Path) -> dict[str, str]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: has no weight_map from tensor to shard.")
    for name, shard in weight_map.items():
        where = f"{index}: {name} is said to be in {shard!r}"
        if not isinstance(shard, str) or not shard.endswith(".safetensors"):
            raise CheckpointError(f"{where}, not a safetensors file.")
        if shard.startswith(".") or any(part in shard for part in ("/", "\\", ":", "\0")):
            raise CheckpointError(f"{where}; a shard is a bare file name in the same directory.")
    return weight_map


def _open_sharded(directory: pathlib.Path, weight_map: Mapping[str, str]) -> dict[str, Stored]:
    shards = sorted(set(weight_map.values()))
    absent = [shard for shard in shards if not (directory / shard).is_file()]
    if absent:
        raise CheckpointError(
            f"{directory}: {len(absent)} of {len(shards)} shards are missing: {', '.join(absent)}. "
            "Download them again."
        )
    tensors = {}
    for shard in shards:
        for tensor in _open_file(directory / shard):
            if tensor.name in tensors:
                first = tensors[tensor.name].file
                raise CheckpointError(f"{directory}: {tensor.name} is in {first} and in {shard}.")
            tensors[tensor.name] = tensor
    wrong = [name for name, shard in weight_map.items() if _file_of(tensors, name) != shard]
    wrong += [name for name in tensors if name not in weight_map]
    if wrong:
        raise CheckpointError(
            f"{directory}: {INDEX} and the shards disagree about {len(wrong)} tensors: "
            f"{', '.join(sorted(wrong))}. Download the directory again."
        )
    return tensors


def _file_of(tensors: Mapping[str, Stored], name: str) -> str | None:
    return tensors[name].file if name in tensors else None


def _open_file(path: pathlib.Path) -> list[Stored]:
    try:
        with safe_open(path, framework="np"):  # which checks header, sizes and overlaps
            pass
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        data = np.memmap(path, np.uint8, mode="r", offset=8 + length).view(np.ndarray)
        return [
            Stored(
                name=name,
                shape=tuple(entry["shape"]),
                dtype=entry["dtype"],
                file=path.name,
                data=data[slice(*entry["data_offsets"])],
            )
            for name, entry in header.items()
            if name != "__metadata__"
        ]
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        detail = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{path}: not a whole safetensors file ({detail}). Download or save it again."
        ) from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planned:
    """A parameter to write: one tensor, or one of the same shape per layer.

    Attributes:
      names: of its tensors.
      shape: extents of each.
      dtype: of each.
      make: returns them in order; called once, when their turn comes.
    """

    names: Sequence[str]
    shape: tuple[int, ...]
    dtype: np.dtype
    make: Callable[[], Iterable[np.ndarray]]

    @property
    def nbytes(self) -> int:
        """Bytes on disk of each tensor."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


_Tensor = tuple[str, Planned]  # a name, and the parameter that it is of


def write_tensors(
    directory: pathlib.Path, parameters: Sequence[Planned], *, max_shard_bytes: float
) -> None:
    """Writes shards (one file when all fit, else numbered ones with an index) into `directory`.

    Whole layers stay in one shard. Headers are written first, then one parameter after the other,
    each layer at its place, so that no more than one parameter is needed at a time.

    Raises:
      OSError: the disk is full; `files.new_directory` makes one line of it.
    """
    tensors = sorted(((n, p) for p in parameters for n in p.names), key=_natural_order)
    total = sum(parameter.nbytes for _, parameter in tensors)
    check_space(directory, total)
    shards = _split(tensors, max_shard_bytes)
    files = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    if len(shards) == 1:
        files = [SINGLE]
    else:
        weight_map = {name: file for file, s in zip(files, shards, strict=True) for name, _ in s}
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        write_json(directory / INDEX, index)
    places = {}
    for file, shard in zip(files, shards, strict=True):
        offsets = _write_header(directory / file, shard)
        places |= {name: (directory / file, offset) for name, offset in offsets.items()}
    for parameter in parameters:
        _write_parameter(parameter, places)


def _natural_order(tensor: _Tensor) -> list[tuple[int, str]]:
    return [(int(p), "") if p.isdigit() else (-1, p) for p in tensor[0].split(".")]


def _split(tensors: Sequence[_Tensor], max_shard_bytes: float) -> list[list[_Tensor]]:
    shards: list[list[_Tensor]] = [[]]
    size = 0
    for tensor in tensors:
        nbytes = tensor[1].nbytes
        if shards[-1] and size + nbytes > max_shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += nbytes
    return shards


def _write_header(path: pathlib.Path, shard: Sequence[_Tensor]) -> dict[str, int]:
    """Starts a file; returns where each tensor goes."""
    # Wide types first, then by name: every tensor then starts at a multiple of its own width.
    ordered = sorted(shard, key=lambda tensor: (-tensor[1].dtype.itemsize, tensor[0]))
    header: dict[str, Any] = collections.OrderedDict(__metadata__={"format": "pt"})
    offsets, end = {}, 0
    for name, parameter in ordered:
        start, end = end, end + parameter.nbytes
        header[name] = {
            "dtype": _CODES[parameter.dtype],
            "shape": list(parameter.shape),
            "data_offsets": [start, end],
        }
        offsets[name] = start
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    data = struct.pack("<Q", len(text)) + text
    path.write_bytes(data)
    return {name: len(data) + offset for name, offset in offsets.items()}


def _write_parameter(parameter: Planned, places: Mapping[str, tuple[pathlib.Path, int]]) -> None:
    for name, array in zip(parameter.names, parameter.make(), strict=True):
        assert (array.shape, array.dtype) == (parameter.shape, parameter.dtype), name
        path, offset = places[name]
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(contiguous(array).reshape(-1).view(np.uint8).data)


def contiguous(array: np.ndarray) -> np.ndarray:
    """`array` in C order: itself, or a copy."""
    if array.flags.c_contiguous:
        return array
    out = empty(array.shape, array.dtype)
    copy_into(out, array)
    return out


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Room for an array, where jax takes it over on CPUs without a copy."""
    nbytes = math.prod(shape) * dtype.itemsize
    room = np.empty(nbytes + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    return room[start : start + nbytes].view(dtype).reshape(shape)


def copy_into(out: np.ndarray, array: np.ndarray) -> None:
    """Copies an array of the same type, a transposed matrix in strips that a cache can hold."""
    if array.ndim != 2 or array.flags.c_contiguous:
        out[...] = array
        return
    for start in range(0, array.shape[1], _STRIP):
        out[:, start : start + _STRIP] = array[:, start : start + _STRIP]

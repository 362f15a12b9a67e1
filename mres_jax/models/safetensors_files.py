"""Safetensors on disk, without torch: a directory of tensors in, one or several shards out.

Reading memory-maps the files and copies one tensor at a time; writing streams one tensor at a time.
"""

import collections
import dataclasses
import json
import pathlib
import struct
from collections.abc import Callable, Mapping, Sequence
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stored:
    """One tensor of an opened directory.

    Attributes:
      name: key in its file.
      shape: extents.
      dtype: safetensors code, for example `BF16`.
      file: which shard holds it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    file: str
    handle: Any = dataclasses.field(repr=False)

    def read(self) -> np.ndarray:
        """Returns the tensor; `bfloat16` arrives as `ml_dtypes.bfloat16`."""
        return self.handle.get_tensor(self.name)


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
        handle = safe_open(path, framework="np")
        slices = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118
        return [
            Stored(
                name=name,
                shape=tuple(part.get_shape()),
                dtype=part.get_dtype(),
                file=path.name,
                handle=handle,
            )
            for name, part in slices.items()
        ]
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        detail = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{path}: not a whole safetensors file ({detail}). Download or save it again."
        ) from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planned:
    """One tensor to write. `make` is called once, when its turn comes."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    make: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def write_tensors(
    directory: pathlib.Path, tensors: Sequence[Planned], *, max_shard_bytes: float
) -> None:
    """Writes shards (one file when all fit, else numbered ones with an index) into `directory`.

    Raises:
      OSError: the disk is full; `files.new_directory` makes one line of it.
    """
    total = sum(tensor.nbytes for tensor in tensors)
    check_space(directory, total)
    shards = _split(tensors, max_shard_bytes)
    if len(shards) == 1:
        _write_file(directory / SINGLE, shards[0])
        return
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write_file(directory / file, shard)
        weight_map |= {tensor.name: file for tensor in shard}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    write_json(directory / INDEX, index)


def _split(tensors: Sequence[Planned], max_shard_bytes: float) -> list[list[Planned]]:
    shards: list[list[Planned]] = [[]]
    size = 0
    for tensor in tensors:
        if shards[-1] and size + tensor.nbytes > max_shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.nbytes
    return shards


def _write_file(path: pathlib.Path, tensors: Sequence[Planned]) -> None:
    # Wide types first, then by name: every tensor then starts at a multiple of its own width.
    ordered = sorted(tensors, key=lambda tensor: (-tensor.dtype.itemsize, tensor.name))
    header: dict[str, Any] = collections.OrderedDict(__metadata__={"format": "pt"})
    offset = 0
    for tensor in ordered:
        end = offset + tensor.nbytes
        header[tensor.name] = {
            "dtype": _CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in ordered:
            array = np.asarray(tensor.make(), order="C")
            assert (array.shape, array.dtype) == (tensor.shape, tensor.dtype), tensor.name
            file.write(array.reshape(-1).view(np.uint8).data)

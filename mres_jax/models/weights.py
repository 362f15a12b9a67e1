"""Weights in and out: safetensors into a (sharded) skeleton and back, bit-exactly, no torch."""

import functools
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec, Sharding
from jax.typing import DTypeLike

from mres_jax.errors import CheckpointError
from mres_jax.models.key_table import (
    Key,
    KeyTable,
    Parameters,
    Skeleton,
    expected_shapes,
    flatten,
    layer_names,
    match,
    variables,
)
from mres_jax.models.safetensors_files import (
    FLOATS,
    Planned,
    Stored,
    copy_into,
    empty,
    write_tensors,
)
from mres_jax.models.unread import Unread

ShardingRule = Callable[[str, tuple[int, ...]], Sharding]


def load_weights(
    model_dir: str | os.PathLike[str],
    skeleton: Skeleton,
    table: KeyTable,
    *,
    dtype: DTypeLike | Literal["stored"] | None = None,
    sharding: Sharding | ShardingRule | None = None,
) -> Parameters:
    """Returns the parameters of a Hugging Face directory in the shape of `skeleton`.

    Files are memory-mapped and read parameter by parameter, so the host holds at most one stacked
    parameter beyond the result.

    Args:
      model_dir: directory with `model.safetensors`, or shards and their index.
      skeleton: abstract model (`nnx.eval_shape`), or its `nnx.state(..., nnx.Param)`.
      table: keys of the family.
      dtype: of the parameters; None takes the skeleton's, `stored` the file's.
      sharding: of every parameter, or a function of its dotted path and shape.

    Raises:
      CheckpointError: damaged or missing files; keys missing, unexpected or of the wrong shape, all
        of them in one message; a value that `dtype` cannot hold.
    """
    opened = open_weights(model_dir, skeleton, table, dtype=dtype)
    loaded = []
    for path, variable in variables(opened):
        array = _place(".".join(map(str, path)), variable.get_value().read(), sharding)
        loaded.append((path, variable.replace(array)))
    return nnx.from_flat_state(loaded)


def open_weights(
    model_dir: str | os.PathLike[str],
    skeleton: Skeleton,
    table: KeyTable,
    *,
    dtype: DTypeLike | Literal["stored"] | None = None,
) -> Parameters:
    """As `load_weights`, but every parameter is `Unread`: the files are checked, not yet read.

    Raises:
      CheckpointError: as `load_weights`; of a value that `dtype` cannot hold when it is read.
    """
    leaves = flatten(skeleton)
    sources = match(pathlib.Path(model_dir), leaves, table)
    opened = []
    for path, variable in variables(skeleton):
        name = ".".join(map(str, path))
        (key, stored), leaf = sources[name], leaves[name]
        kind = _parameter_dtype(dtype, leaf, stored)
        read = functools.partial(_assemble, key, stored, leaf.shape, kind)
        opened.append((path, variable.replace(Unread(shape=leaf.shape, dtype=kind, read=read))))
    return nnx.from_flat_state(opened)


def write_weights(
    state: Skeleton,
    table: KeyTable,
    directory: pathlib.Path,
    *,
    max_shard_bytes: float = 5e9,
    dtype: DTypeLike | None = None,
) -> None:
    """Writes parameters as safetensors in Hugging Face's layout into a directory that exists.

    `Unread` parameters are read one at a time. `dtype` None keeps each parameter's own.

    Raises:
      CheckpointError: a value does not fit `dtype`.
      OSError: the disk is full; `files.new_directory` makes one line of it.
    """
    leaves = flatten(state)
    shapes = expected_shapes(leaves, table)
    planned = []
    for key in table.keys:
        if key.ours not in leaves:
            continue
        leaf = leaves[key.ours]
        target = np.dtype(leaf.dtype if dtype is None else dtype)
        names = layer_names(key, leaf)
        make = functools.partial(_tensors, key, leaf, target)
        planned.append(Planned(names=names, shape=shapes[names[0]], dtype=target, make=make))
    write_tensors(directory, planned, max_shard_bytes=max_shard_bytes)


def fully_sharded(mesh: Mesh | AbstractMesh) -> ShardingRule:
    """Returns a rule that splits the largest divisible axis of each parameter over the whole mesh.

    Parameters without such an axis are replicated. It balances memory; training and large-scale
    inference bring rules of their own.
    """

    def rule(path: str, shape: tuple[int, ...]) -> Sharding:
        del path
        axes = [a for a in range(len(shape)) if shape[a] and shape[a] % mesh.size == 0]
        spec: list[Any] = [None] * len(shape)
        if axes:
            spec[max(axes, key=lambda a: shape[a])] = mesh.axis_names
        return NamedSharding(mesh, PartitionSpec(*spec))

    return rule


def cast(array: np.ndarray, dtype: Any, name: str) -> np.ndarray:
    """`array` in another float type; refuses values that it cannot hold."""
    dtype = np.dtype(dtype)
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore"):
        out = array.astype(dtype)
    if jnp.finfo(dtype).maxexp < jnp.finfo(array.dtype).maxexp:
        lost = np.isinf(out) & np.isfinite(array)
        if lost.any():
            worst = float(np.abs(array[lost].astype(np.float64)).max())
            raise CheckpointError(
                f"{name}: {int(lost.sum())} values up to {worst:.4g} do not fit {dtype.name}. Use "
                "bfloat16 or float32."
            )
    return out


def _tensors(key: Key, leaf: Any, dtype: np.dtype) -> Iterator[np.ndarray]:
    """The file's tensors of a parameter, layer by layer; an unread one is read once."""
    array = leaf.read() if isinstance(leaf, Unread) else leaf
    for layer in range(leaf.shape[0]) if key.stacked else (None,):
        yield key.to_hf(cast(_on_host(array, layer), dtype, key.ours))


def _on_host(leaf: Any, layer: int | None) -> np.ndarray:
    """A parameter, or one layer of it, without keeping a copy of whole stacks on the host."""
    if layer is None:
        return np.asarray(leaf)
    near = isinstance(leaf, np.ndarray) or all(d.platform == "cpu" for d in leaf.devices())
    return np.asarray(leaf)[layer] if near else np.asarray(leaf[layer])


def _parameter_dtype(dtype: Any, leaf: Any, stored: Sequence[Stored]) -> np.dtype:
    if dtype is None:
        return np.dtype(leaf.dtype)
    if isinstance(dtype, str) and dtype == "stored":
        types = {FLOATS[tensor.dtype] for tensor in stored}
        return types.pop() if len(types) == 1 else np.dtype(np.float32)  # holds all three exactly
    return np.dtype(dtype)


def _assemble(
    key: Key, stored: Sequence[Stored], shape: tuple[int, ...], dtype: np.dtype
) -> np.ndarray:
    group = empty(shape, dtype)
    for layer, tensor in enumerate(stored):
        part = group[layer] if key.stacked else group
        copy_into(part, cast(key.to_ours(tensor.read()), dtype, tensor.name))
    return group


def _place(path: str, array: np.ndarray, sharding: Sharding | ShardingRule | None) -> jax.Array:
    if sharding is None:
        return jax.device_put(array)
    if not isinstance(sharding, Sharding):
        sharding = sharding(path, array.shape)
    # Each process hands over the parts that its own devices hold.
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

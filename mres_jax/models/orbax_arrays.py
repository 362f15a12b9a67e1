"""Trees of named arrays in orbax's files: whole trees at once, or array by array."""

import gc
import json
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from mres_jax.files import is_address
from mres_jax.models.unread import Unread

# orbax takes 1.5 s to import, and only saving and restoring need it: it is imported in functions.

_BATCH_BYTES = 256 * 2**20  # small parameters share a write; a larger one has its own
_CHUNK_BYTES = 64 * 2**20  # of a file: chunks are written, and later read, by several threads
_PART = "state"  # what orbax calls the tree that `partial.save` adds to


class _Held:
    """Counts bytes that orbax has read and may still hold, in cycles of references.

    Collecting them looks at every object of the process, so it is done once for many small arrays.
    """

    def __init__(self) -> None:
        self._num_bytes = 0

    def add(self, num_bytes: int) -> None:
        self._num_bytes += num_bytes
        if self._num_bytes >= _BATCH_BYTES:
            self._num_bytes = 0
            gc.collect()


_held = _Held()


def save_arrays(path: epath.Path, trees: Mapping[str, Mapping[str, Any]]) -> None:
    """Saves trees of arrays by name.

    A single tree with `Unread` parameters in it is read and written batch by batch. Elsewhere (in
    a bucket, beside another tree) such parameters are all read first.
    """
    import orbax.checkpoint.experimental.v1 as ocp

    unread = any(isinstance(x, Unread) for arrays in trees.values() for x in arrays.values())
    if unread and len(trees) == 1 and not is_address(path):
        [(tree, arrays)] = trees.items()
        _stream(path, tree, arrays)
        return
    whole = {tree: {n: _read(x) for n, x in arrays.items()} for tree, arrays in trees.items()}
    ocp.save_checkpointables(path, whole)


def load_arrays(path: epath.Path, structs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns trees of arrays; `structs` says which, with their types and shardings."""
    import orbax.checkpoint.experimental.v1 as ocp

    return ocp.load_checkpointables(path, dict(structs))


def open_array(path: epath.Path, tree: str, name: str, struct: jax.ShapeDtypeStruct) -> Unread:
    """Returns one array of a tree as it was saved, without reading it yet."""

    def read() -> np.ndarray:
        import orbax.checkpoint.experimental.v1 as ocp

        context = ocp.Context()
        context.pytree_options.loading.partial_load = True
        with context:
            array = np.asarray(ocp.load_checkpointables(path, {tree: {name: host}})[tree][name])
        _held.add(array.nbytes)
        return array

    host = jax.ShapeDtypeStruct(struct.shape, struct.dtype, sharding=_host())
    return Unread(shape=tuple(struct.shape), dtype=np.dtype(struct.dtype), read=read)


def _stream(path: epath.Path, tree: str, arrays: Mapping[str, Any]) -> None:
    """Writes a tree batch by batch, as orbax's parts of one tree.

    Values are not compressed: random bfloat16 shrinks by a fifth, and writing takes up to 5 times
    as long.
    """
    import orbax.checkpoint.experimental.v1 as ocp

    context = ocp.Context()
    context.memory_options.deepcopy_host_arrays = False
    saving = context.array_options.saving
    saving.use_compression = False
    saving.storage_options = saving.StorageOptions(chunk_byte_size=_CHUNK_BYTES)
    with context:
        for names in _batches(arrays):
            ocp.partial.save(path, {name: _read(arrays[name]) for name in names})
            gc.collect()  # orbax holds what it wrote in cycles of references
        ocp.partial.finalize(path)
    _rename(path, tree)


def _batches(arrays: Mapping[str, Any]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for name, array in arrays.items():
        if batch and size + array.nbytes > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(name)
        size += array.nbytes
    if batch:
        yield batch


def _read(array: Any) -> Any:
    return jax.device_put(array.read(), _host()) if isinstance(array, Unread) else array


def _host() -> jax.sharding.Sharding:
    return jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])


def _rename(path: epath.Path, tree: str) -> None:
    """Gives the tree that was saved in parts the name it is asked for by."""
    (path / _PART).rename(path / tree)
    metadata = path / "_CHECKPOINT_METADATA"
    content = json.loads(metadata.read_text())
    handler = "orbax.checkpoint.experimental.v1._src.handlers.pytree_handler.PyTreeHandler"
    content["item_handlers"] = {tree: handler}
    metadata.write_text(json.dumps(content))

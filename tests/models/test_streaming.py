"""Conversion holds one parameter at a time, and writes what saving a whole model would."""

import dataclasses
import gc
import json
import math
import shutil
import warnings
import weakref
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from flax import nnx

from mres_jax import testing
from mres_jax.models import _loading, orbax_arrays
from mres_jax.models.checkpoint_io import read_checkpoint, write_checkpoint
from mres_jax.models.key_table import flatten
from mres_jax.models.manifest import DamagedError
from mres_jax.models.qwen2_vl.config import Qwen2VLConfig
from mres_jax.models.registry import (
    LoadedModel,
    convert,
    export_hf,
    family_of,
    load_model,
    save_model,
)
from mres_jax.models.safetensors_files import contiguous, copy_into
from mres_jax.models.unread import Unread


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    """Random parameters in a skeleton: nothing is compiled."""
    tokenizer = testing.tiny_tokenizer()
    config = Qwen2VLConfig(
        vision_config=testing.tiny_vision_config(hidden_size=32),
        text_config=testing.tiny_text_config(tokenizer, mrope_section=(1, 1, 2)),
        image_token_id=tokenizer.token_id("<|image_pad|>"),
    )
    family, draw = family_of(config), np.random.default_rng(0)
    graphdef, abstract = nnx.split(family.skeleton(config))
    filled = jax.tree.map(lambda x: draw.normal(size=x.shape).astype(jnp.bfloat16), abstract)
    return LoadedModel(
        model=nnx.merge(graphdef, filled),
        spec=family.make_spec(config, tokenizer.token_id),
        tokenizer=tokenizer,
    )


@pytest.fixture(scope="module")
def theirs(loaded, tmp_path_factory):
    directory = tmp_path_factory.mktemp("hf") / "model"
    export_hf(loaded, directory, dtype=jnp.bfloat16)
    return directory


@pytest.fixture(scope="module")
def ours(theirs, tmp_path_factory):
    directory = tmp_path_factory.mktemp("orbax") / "model"
    convert(theirs, directory)
    return directory


def parameters(model: LoadedModel) -> dict[str, Any]:
    return flatten(nnx.state(model.model, nnx.Param))


def watch(opened: LoadedModel) -> list[int]:
    """Has every read of a parameter note how many read before it are still held."""
    held, counts = [], []

    def watched(leaf: Unread) -> Unread:
        def read() -> np.ndarray:
            counts.append(sum(reference() is not None for reference in held))
            array = leaf.read()
            whole = array if array.base is None else array.base
            held.append(weakref.ref(whole if isinstance(whole, np.ndarray) else array))
            return array

        return dataclasses.replace(leaf, read=read)

    nnx.update(opened.model, jax.tree.map(watched, nnx.state(opened.model, nnx.Param)))
    return counts


@pytest.mark.slow
def test_no_batch_is_held_while_the_next_is_read(theirs, tmp_path, monkeypatch):
    monkeypatch.setattr(orbax_arrays, "_BATCH_BYTES", 12_000)
    opened = _loading.open_model(theirs)
    batches = list(orbax_arrays._batches(parameters(opened)))
    assert len(batches) > 4
    counts = watch(opened)
    save_model(opened, tmp_path / "ours")
    places = [place for batch in batches for place in range(len(batch))]
    assert all(count <= place for count, place in zip(counts, places, strict=True)), counts


def test_no_parameter_is_held_while_the_next_is_read(ours, tmp_path, monkeypatch):
    monkeypatch.setattr(orbax_arrays, "_BATCH_BYTES", 1)
    opened = _loading.open_model(ours)
    counts = watch(opened)
    gc.freeze()  # what other tests left is not looked through again and again
    try:
        export_hf(opened, tmp_path / "theirs", max_shard_bytes=20_000)
    finally:
        gc.unfreeze()
    assert counts == [0] * len(parameters(opened))


def test_what_orbax_holds_is_collected_once_a_batch_not_once_a_parameter(
    ours, tmp_path, monkeypatch
):
    """A collection takes as long as the process has objects, 0.2 s and more."""
    sweeps = []
    monkeypatch.setattr(orbax_arrays.gc, "collect", lambda: sweeps.append(1))
    opened = _loading.open_model(ours)
    sizes = [leaf.nbytes for leaf in parameters(opened).values()]
    monkeypatch.setattr(orbax_arrays, "_BATCH_BYTES", sum(sizes) // 3)
    export_hf(opened, tmp_path / "theirs")
    assert 2 <= len(sweeps) <= 4 < len(sizes)


def test_opening_reads_nothing(theirs, ours):
    for directory in (theirs, ours):
        leaves = parameters(_loading.open_model(directory))
        assert all(isinstance(leaf, Unread) for leaf in leaves.values())
        whole = parameters(load_model(directory, param_dtype="stored"))
        for name, leaf in leaves.items():
            array = leaf.read()
            assert (array.shape, array.dtype, array.nbytes) == (
                leaf.shape,
                leaf.dtype,
                leaf.nbytes,
            )
            np.testing.assert_array_equal(array, np.asarray(whole[name]), err_msg=name)


def test_what_is_written_in_parts_is_what_is_written_whole(theirs, ours, tmp_path):
    """To orbax itself: the same tree under the same name, with the same arrays."""
    import orbax.checkpoint.experimental.v1 as ocp

    save_model(load_model(theirs, param_dtype="stored"), tmp_path / "whole")
    parts, whole = (
        ocp.checkpointables_metadata(path / "orbax").metadata for path in (ours, tmp_path / "whole")
    )
    assert parts.keys() == whole.keys() == {"model"}
    assert {n: (x.shape, x.dtype) for n, x in parts["model"].items()} == {
        n: (x.shape, x.dtype) for n, x in whole["model"].items()
    }
    handlers = [
        json.loads((path / "orbax/_CHECKPOINT_METADATA").read_text())["item_handlers"]
        for path in (ours, tmp_path / "whole")
    ]
    assert handlers[0] == handlers[1]
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of unstated shardings
        loaded = [
            ocp.load_checkpointables(path / "orbax")["model"] for path in (ours, tmp_path / "whole")
        ]
    jax.tree.map(np.testing.assert_array_equal, *loaded)
    assert [file.name for file in sorted(ours.iterdir())] == [
        file.name for file in sorted((tmp_path / "whole").iterdir())
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch", "chunk"), [(12_000, 256), pytest.param(2**30, 2**20, marks=pytest.mark.slow)]
)
def test_batches_and_chunks_do_not_matter(theirs, loaded, tmp_path, monkeypatch, batch, chunk):
    monkeypatch.setattr(orbax_arrays, "_BATCH_BYTES", batch)
    monkeypatch.setattr(orbax_arrays, "_CHUNK_BYTES", chunk)
    convert(theirs, tmp_path / "ours")
    expected = parameters(load_model(theirs, param_dtype="stored"))
    found = parameters(load_model(tmp_path / "ours", param_dtype="stored"))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_flipped_bit_in_a_part_is_found(ours, tmp_path):
    shutil.copytree(ours, tmp_path / "copy")
    file = max((tmp_path / "copy/orbax").rglob("*"), key=lambda p: p.stat().st_size * p.is_file())
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(DamagedError, match=f"{file.name}: crc32"):
        convert(tmp_path / "copy", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_beside_another_tree_parameters_are_read_first(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    trees = {
        "model": {"a": Unread(shape=(2, 3), dtype=array.dtype, read=lambda: array)},
        "training": {"b": jnp.ones(2)},
    }
    write_checkpoint(epath.Path(tmp_path / "step"), trees, config={})
    structs = {"model": {"a": jax.ShapeDtypeStruct((2, 3), np.float32)}}
    found = read_checkpoint(epath.Path(tmp_path / "step"), structs)["model"]["a"]
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("shape", [(70, 45), (33, 70), (64, 32), (0, 5), (7,), (2, 3, 4)])
def test_copies_in_strips_are_copies(shape):
    array = np.arange(math.prod(shape), dtype=np.float32).reshape(shape).astype(jnp.bfloat16)
    for view in (array, array.T):
        out = np.zeros(view.shape, view.dtype)
        copy_into(out, view)
        np.testing.assert_array_equal(out, view)
        np.testing.assert_array_equal(contiguous(view), view)
        assert contiguous(view).flags.c_contiguous

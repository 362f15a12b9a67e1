"""Our own checkpoints: trees of arrays through orbax, with assets and a verified manifest.

```
DIR/orbax/<tree>/...     arrays, one orbax checkpointable per tree (`model`, `training`)
DIR/assets/...           tokenizer, chat template, preprocessor and generation settings
DIR/mres_manifest.json   written last: what it is, and a checksum of every file
```
"""

import contextlib
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from etils import epath
from jax.experimental import multihost_utils

from mres_jax.errors import CheckpointError, RunError
from mres_jax.files import system_reason
from mres_jax.models._trees import as_struct, leaves_by_name, rebuild
from mres_jax.models.files import save_error
from mres_jax.models.manifest import (
    ASSETS,
    FILE,
    TREES,
    Manifest,
    checksums,
    list_files,
    read_base,
    read_manifest,
    reference,
    verify,
    write_manifest,
)
from mres_jax.models.orbax_arrays import load_arrays, open_array, save_arrays

_SETTLE_TRIES = 100  # of 0.05 s


def write_checkpoint(
    directory: epath.Path,
    trees: Mapping[str, Any],
    *,
    config: Mapping[str, Any],
    step: int = 0,
    policy: str | None = None,
    extra: Mapping[str, Any] | None = None,
    assets: Mapping[str, bytes] | None = None,
    base: epath.Path | None = None,
) -> None:
    """Saves trees of arrays as `directory`; what stands there is removed first.

    Every process of a run calls it; process 0 writes the manifest.

    Args:
      directory: of the checkpoint.
      trees: pytrees by name; `model` holds the parameters of the model, which may be `Unread`.
      config: the model's `config.json`.
      step: training step.
      policy: resolution policy the model was trained with.
      extra: more facts for the manifest, JSON.
      assets: files by name, kept as they are.
      base: a checkpoint beside this one that holds the arrays which `trees` lack.

    Raises:
      RunError: the disk is full or refuses; nothing is left behind.
    """
    arrays = {name: leaves_by_name(tree) for name, tree in trees.items()}
    described = {
        tree: {name: [list(x.shape), str(x.dtype)] for name, x in leaves.items()}
        for tree, leaves in arrays.items()
    }
    with _clean_failure(directory), _quiet():
        save_arrays(absolute(directory / TREES), arrays)
        if jax.process_index() == 0:
            for name, content in (assets or {}).items():
                (directory / ASSETS).mkdir(parents=True, exist_ok=True)
                (directory / ASSETS / name).write_bytes(content)
            manifest = Manifest(
                step=step,
                config=config,
                policy=policy,
                extra=extra or {},
                arrays=described,
                files=checksums(list_files(directory)),
                base=None if base is None else reference(directory, base),
            )
            write_manifest(directory, manifest)
        _barrier("saved")


def read_checkpoint(
    directory: epath.Path, abstract: Mapping[str, Any], *, cast: bool = False
) -> dict[str, Any]:
    """Verifies every file, then returns the named trees with the structure of `abstract`.

    Args:
      directory: of the checkpoint.
      abstract: trees by name, any subset of those saved, of arrays or `jax.ShapeDtypeStruct`;
        shapes and types must be those saved, shardings are the caller's.
      cast: types may differ; values are converted.

    Raises:
      DamagedError: a changed file, by name.
      CheckpointError: arrays that differ in name, shape or type; all by name.
    """
    sources, targets = _verified(directory, abstract, cast=cast)
    loaded: dict[str, dict[str, Any]] = {tree: {} for tree in targets}
    for source, manifest in sources:
        structs = {
            tree: {name: as_struct(leaves[name]) for name in manifest.arrays[tree]}
            for tree, leaves in targets.items()
            if tree in manifest.arrays
        }
        if not structs:
            continue
        with _quiet():
            for tree, arrays in load_arrays(absolute(source / TREES), structs).items():
                loaded[tree] |= arrays
    return {name: rebuild(tree, loaded[name]) for name, tree in abstract.items()}


def open_checkpoint(directory: epath.Path, abstract: Mapping[str, Any]) -> dict[str, Any]:
    """As `read_checkpoint`, but every array is `Unread`: files are verified, not yet loaded."""
    sources, targets = _verified(directory, abstract, cast=False)
    opened: dict[str, dict[str, Any]] = {tree: {} for tree in targets}
    for source, manifest in sources:
        path = absolute(source / TREES)
        for tree, leaves in targets.items():
            for name in manifest.arrays.get(tree, ()):
                opened[tree][name] = open_array(path, tree, name, leaves[name])
    return {name: rebuild(tree, opened[name]) for name, tree in abstract.items()}


def _verified(
    directory: epath.Path, abstract: Mapping[str, Any], *, cast: bool
) -> tuple[list[tuple[epath.Path, Manifest]], dict[str, dict[str, Any]]]:
    """Where the trees are, and their leaves, once files and names are found right."""
    sources = _sources(directory)
    for source, manifest in sources:
        verify(source, manifest)
    targets = {name: leaves_by_name(tree) for name, tree in abstract.items()}
    _compare(directory, _arrays(sources), targets, cast=cast)
    return sources, targets


def stored_arrays(directory: epath.Path) -> dict[str, dict[str, list[Any]]]:
    """Returns tree -> dotted name -> [shape, dtype] of a checkpoint and of what it leans on."""
    return _arrays(_sources(directory))


def _sources(directory: epath.Path) -> list[tuple[epath.Path, Manifest]]:
    manifest = read_manifest(directory)
    base = read_base(directory, manifest)
    return [(directory, manifest), *([base] if base else ())]


def _arrays(sources: Sequence[tuple[epath.Path, Manifest]]) -> dict[str, dict[str, list[Any]]]:
    arrays: dict[str, dict[str, list[Any]]] = {}
    for _, manifest in sources:
        for tree, leaves in manifest.arrays.items():
            arrays.setdefault(tree, {}).update(leaves)
    return arrays


def read_assets(directory: epath.Path) -> dict[str, bytes]:
    """Returns the files that were kept beside the arrays, by name."""
    folder = directory / ASSETS
    if not folder.is_dir():
        return {}
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def absolute(path: str | os.PathLike[str]) -> epath.Path:
    """Orbax takes absolute paths only; a bucket's already is."""
    text = os.fspath(path)
    return epath.Path(text if "://" in text else os.path.abspath(text))


def _compare(
    directory: epath.Path,
    arrays: Mapping[str, Mapping[str, list[Any]]],
    targets: Mapping[str, Mapping[str, Any]],
    *,
    cast: bool,
) -> None:
    problems = []
    for tree, leaves in targets.items():
        stored = arrays.get(tree)
        if stored is None:
            have = ", ".join(arrays)
            raise CheckpointError(f"{directory}: no tree {tree!r} in the checkpoint; have {have}.")
        expected = {name: [list(x.shape), str(x.dtype)] for name, x in leaves.items()}
        problems += [
            f"{tree}.{name}: expected, not found" for name in expected.keys() - stored.keys()
        ]
        problems += [
            f"{tree}.{name}: found, not expected" for name in stored.keys() - expected.keys()
        ]
        problems += [
            f"{tree}.{name}: expected {_text(expected[name])}; found {_text(stored[name])}"
            for name in expected.keys() & stored.keys()
            if expected[name][0] != stored[name][0]
            or (expected[name][1] != stored[name][1] and not cast)
        ]
    if problems:
        raise CheckpointError(
            f"{directory}: {len(problems)} arrays differ from the model: "
            f"{'; '.join(sorted(problems))}."
        )


def _text(array: list[Any]) -> str:
    return f"{array[1]} {tuple(array[0])}"


@contextlib.contextmanager
def _clean_failure(directory: epath.Path) -> Iterator[None]:
    """Removes what a failed save left, and says in one line why it failed."""
    try:
        _remove(directory)
        _barrier("cleared")  # before it, process 0 may delete what another makes
        directory.mkdir(parents=True, exist_ok=True)
        yield
    except Exception as error:
        _remove(directory, settle=True)
        if isinstance(error, CheckpointError | RunError):
            raise
        raise save_error(directory, error, _reason(error)) from error


def remove_checkpoint(directory: epath.Path) -> None:
    """Deletes a checkpoint; if that is cut short, what remains is not taken for one."""
    (directory / FILE).unlink(missing_ok=True)
    directory.rmtree()


def _remove(directory: epath.Path, *, settle: bool = False) -> None:
    """Process 0 deletes; `settle` outlasts writers of orbax that a failure left running."""
    if jax.process_index() != 0:
        return
    gone = 0
    for _ in range(_SETTLE_TRIES):
        try:
            if directory.exists():
                gone = 0
                remove_checkpoint(directory)
            gone += 1
        except OSError:  # a file appeared in a folder that was being deleted
            gone = 0
        if gone == 3 or (gone and not settle):
            return
        time.sleep(0.05)
    raise RunError(f"{directory}: could not be deleted; is another process writing there?")


def _barrier(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"mres checkpoint {name}")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return system_reason(error)
    text = (str(error).splitlines() or [type(error).__name__])[0]
    said = re.search(r": ([^:]+) \[os_error_code='\d+'", text)  # how tensorstore reports the system
    return said[1] if said else text


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps orbax from printing a traceback of what is raised anyway."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)

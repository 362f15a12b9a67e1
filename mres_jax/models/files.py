"""Files of a model directory: JSON that a stranger wrote, directories that appear whole."""

import contextlib
import errno
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from etils import epath

from mres_jax.errors import CheckpointError, RunError
from mres_jax.files import FREE_SPACE, is_address, is_disk_full, system_reason

MAX_SMALL_BYTES = 256 * 2**20  # the largest index or tokenizer that is read


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Returns the object in a JSON file.

    Raises:
      CheckpointError: the file is missing, larger than 256 MiB, not JSON or not an object.
    """
    return parse_json(read_small(path), path)


def read_small(path: pathlib.Path) -> bytes:
    """Returns the bytes of a file that is not weights.

    Raises:
      CheckpointError: the file is missing or larger than 256 MiB.
    """
    try:
        size = path.stat().st_size
        if size > MAX_SMALL_BYTES:
            raise CheckpointError(f"{path}: {size} bytes, more than {MAX_SMALL_BYTES}.")
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: {system_reason(error)}.") from error


def parse_json(content: bytes, where: Any) -> dict[str, Any]:
    """Returns the object in JSON text; `where` names it in errors.

    Raises:
      CheckpointError: not JSON, or not an object.
    """
    try:
        parsed = json.loads(content)
    except RecursionError as error:
        raise CheckpointError(f"{where}: not valid JSON (nested too deep).") from error
    except ValueError as error:
        raise CheckpointError(f"{where}: not valid JSON ({str(error).splitlines()[0]}).") from error
    if not isinstance(parsed, dict):
        raise CheckpointError(f"{where}: holds a {type(parsed).__name__}, not a JSON object.")
    return parsed


def write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
    """Writes an object, indented by two, with a newline at the end."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextlib.contextmanager
def new_directory(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yields a temporary directory beside `path` that takes its name when the block ends well.

    When the block fails nothing is left behind; a full disk becomes a `RunError`.

    Raises:
      CheckpointError: `path` is a file, in a bucket, or a directory that holds something.
      RunError: the disk is full or refuses to be written.
    """
    check_local(path)
    target = pathlib.Path(path).absolute()
    check_vacant(target)
    scratch = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    with disk_errors(target):
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        try:
            yield scratch
            if target.exists():
                target.rmdir()  # empty, as checked
            scratch.rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def check_local(path: str | os.PathLike[str]) -> None:
    """Raises `CheckpointError` if a directory of Hugging Face's layout would be in a bucket."""
    if is_address(path):
        raise CheckpointError(
            f"{path}: Hugging Face directories are read and written on local disks only; copy it, "
            "or use a checkpoint of ours there."
        )


def check_vacant(path: os.PathLike[str]) -> None:
    """Raises `CheckpointError` if something stands where a new directory is to be written."""
    path = epath.Path(path)
    if path.is_file():
        raise CheckpointError(f"{path}: is a file; choose the name of a new directory.")
    if path.is_dir() and any(path.iterdir()):
        raise CheckpointError(f"{path}: is not empty; choose the name of a new directory.")


@contextlib.contextmanager
def disk_errors(path: Any) -> Iterator[None]:
    """Turns an `OSError` while writing `path` into a `RunError` of one line."""
    try:
        yield
    except OSError as error:
        raise save_error(path, error, system_reason(error)) from error


def save_error(path: Any, error: Exception, reason: str) -> RunError:
    """Returns what is said of a failed save that cleaned up after itself."""
    cure = f" {FREE_SPACE}." if is_disk_full(error) else ""
    return RunError(f"save {path}: {reason}; nothing was left behind.{cure}")


def check_space(path: pathlib.Path, needed: int) -> None:
    """Raises `OSError`, which `disk_errors` reports, if `needed` bytes cannot fit."""
    free = shutil.disk_usage(path).free
    if needed > free:
        detail = f"needs {needed / 1e6:,.1f} MB, but {free / 1e6:,.1f} MB are free"
        raise OSError(errno.ENOSPC, detail)

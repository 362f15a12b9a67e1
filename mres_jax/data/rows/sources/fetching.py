"""Files of an address -> a folder of this machine, whole or not at all, once for all processes."""

import contextlib
import os
import pathlib
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from mres_jax.data.rows.sources.addresses import Address
from mres_jax.errors import MresError, RunError
from mres_jax.files import disk_reason

_AT_ONCE = 4  # files on their way
_BLOCK = 8 << 20  # bytes that are asked for at a time
_CURE = "Set XDG_CACHE_HOME to a larger disk, or remove what is not needed there"
COPY_ANEW = " Copy the directory anew, or prepare it again."


def fetch_file(
    source: Address,
    folder: pathlib.Path,
    size: int,
    *,
    crc32: str | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> pathlib.Path:
    """Returns the copy of a file, which is made where there is none.

    It has its name when it is whole and on the disk. Other processes wait for the one that makes
    it; what a killed one left is written over.

    Args:
      source: the file.
      folder: of the copy, which has the same name; made if need be.
      size: of the file, bytes.
      crc32: of the file, hexadecimal; None where it is not known.
      log: receives a line when the copy was made now.

    Raises:
      MresError: the file is missing, of another size, or damaged.
      RunError: it cannot be reached, or the disk is full or refuses.
    """
    import fcntl  # which not every system has

    target = folder / source.name
    if _is_whole(target, size):
        return target
    with _of_disk(source, folder):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f".{source.name}.lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_whole(target, size):
                _check_space(folder, size, what=str(source))
                _copy(source, target, size, crc32)
                log(f"{source}: {size / 1e6:,.1f} MB, now in {folder}")
    return target


def fetch_all(
    folder: pathlib.Path,
    sizes: Mapping[str, int],
    fetch: Callable[[str], object],
    *,
    what: str,
    log: Callable[[str], None],
) -> None:
    """Brings files into a folder, several at a time, once there is room for those it lacks.

    Args:
      folder: of the copies.
      sizes: bytes of each file, by name.
      fetch: brings one, as `fetch_file` does.
      what: in messages.
      log: receives a line with their count and bytes before any is brought.

    Raises:
      MresError: as `fetch_file`.
      RunError: likewise, and before anything is fetched where the disk has no room.
    """
    missing = [size for name, size in sizes.items() if not (folder / name).is_file()]
    _check_space(folder, sum(missing), what=what)
    if missing:
        log(f"rows {what}: files to fetch: {len(missing):,}, {sum(missing) / 1e6:,.1f} MB")
    with ThreadPoolExecutor(_AT_ONCE, "shards") as pool:
        list(pool.map(fetch, sizes))


def _check_space(folder: pathlib.Path, size: int, *, what: str) -> None:
    """Raises `RunError` where a folder has no room for so many bytes."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if size > free:
        raise RunError(
            f"rows {what}: {size:,} bytes are to be kept in {folder}, which has {free:,} free. "
            f"{_CURE}."
        )


def _is_whole(path: pathlib.Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _copy(source: Address, target: pathlib.Path, size: int, crc32: str | None) -> None:
    scratch = target.with_name(f".{target.name}.tmp")
    try:
        with scratch.open("wb") as file:
            copied, checksum = 0, 0
            for block in _blocks(source):
                file.write(block)
                copied, checksum = copied + len(block), zlib.crc32(block, checksum)
                if copied > size:
                    break
            file.flush()
            os.fsync(file.fileno())
        what = f"rows {source.parent}: {source.name}"
        if copied != size:
            more = "more than " if copied > size else f"{copied:,} of "
            raise MresError(f"{what} has {more}{size:,} bytes.{COPY_ANEW}")
        if crc32 is not None and f"{checksum:08x}" != crc32:
            raise MresError(
                f"{what} is damaged: its CRC-32 is {checksum:08x}, but {crc32} on the card."
                f"{COPY_ANEW}"
            )
        scratch.replace(target)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def _blocks(source: Address) -> Iterator[bytes]:
    """The content of a file in order."""
    try:
        file = source.open()
    except FileNotFoundError:
        raise MresError(f"rows {source.parent}: {source.name} is missing.{COPY_ANEW}") from None
    with file:
        while block := file.read(_BLOCK):
            yield block


@contextlib.contextmanager
def _of_disk(source: Address, folder: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            f"rows {source}: cannot be kept in {folder}: {disk_reason(error)}. {_CURE}."
        ) from error

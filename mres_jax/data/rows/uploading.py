"""Prepared rows -> an address: written here whole, then copied there, the card last."""

import contextlib
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator

from mres_jax.data.rows.sources.addresses import Address
from mres_jax.data.rows.sources.caches import cache_folder
from mres_jax.data.rows.sources.prepared import CARD, INDEX
from mres_jax.errors import MresError

LEFT_OUT = "left_out.jsonl"
_OURS = re.compile(rf"rows-\d+\.array_record|{re.escape(LEFT_OUT)}")


def check_vacant(address: Address) -> None:
    """Raises `MresError` where an address has a card, or files that no upload of ours left."""
    found = address.listing()
    if CARD in found:
        raise MresError(f"prepare {address}: is prepared already. Name a new directory.")
    if strange := [name for name in found if not _OURS.fullmatch(name)]:
        raise MresError(
            f"prepare {address}: the directory is not empty ({strange[0]}). Name a new one."
        )


@contextlib.contextmanager
def written_here(address: Address, key: str, log: Callable[[str], None]) -> Iterator[pathlib.Path]:
    """Gives a folder for what is to stand at an address; uploads it at the end, and removes it.

    The folder stays where the block or the upload fails, and is the same one the next time.

    Args:
      address: see `check_vacant`.
      key: tells what is written.
      log: receives a line for each file.

    Raises:
      RunError: the address cannot be reached.
    """
    folder = cache_folder("prepared", f"{address}\n{key}".encode())
    yield folder
    names = sorted(file.name for file in folder.iterdir() if _OURS.fullmatch(file.name))
    indexes = [os.path.join(INDEX, file.name) for file in sorted((folder / INDEX).iterdir())]
    for name in (*names, *indexes, CARD):
        address.upload(folder / name, name)
        log(f"{address}/{name}: {(folder / name).stat().st_size / 1e6:,.1f} MB uploaded")
    shutil.rmtree(folder)

"""Where on this machine stands what can be made or fetched again."""

import hashlib
import os
import pathlib


def cache_folder(kind: str, key: bytes) -> pathlib.Path:
    """Returns the folder of the user's caches for one thing; it need not exist.

    Args:
      kind: name of the folder of all such things.
      key: tells this one from the others.
    """
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home, "mres", kind, hashlib.sha256(key).hexdigest()[:16])

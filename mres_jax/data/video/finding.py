"""Where the videos that a table names lie: a file of a known kind, or a folder of its frames."""

import pathlib

from mres_jax.errors import BadRowError

SUFFIXES = ("", ".mp4", ".MP4", ".mkv", ".webm", ".avi")  # "" is a folder of frames


def find_video(root: pathlib.Path, folders: tuple[str, ...], name: str, row: str) -> str:
    """Returns the path of a video.

    Args:
      root: of the copy.
      folders: below it that may hold videos.
      name: of the video, without its suffix.
      row: that asks about it.

    Raises:
      BadRowError: it is in none of them.
    """
    for folder in folders:
        for suffix in SUFFIXES:
            path = root / folder / f"{name}{suffix}"
            if path.is_dir() if not suffix else path.is_file():
                return str(path)
    where = ", ".join(folder or "." for folder in folders)
    raise BadRowError(row, f"video {name} is not in {where} of {root}", "missing video")

"""Tasks of lmms-eval about videos, asked of a local copy.

There, a task looks for its videos under `HF_HOME`. Here each row of the table that is written names
its own, in a column that the task's `doc_to_visual` is pointed at.
"""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mres_jax.data.rows.sources.parquet import Table
from mres_jax.data.video.finding import find_video
from mres_jax.errors import BadRowError, MresError

COLUMN = "local_video"
_NAMED = 3  # rows that an error names


class Videos(NamedTuple):
    """Where the videos of a task lie.

    Attributes:
      column: of the table that names them, with or without a suffix.
      folders: of a copy that may hold them.
    """

    column: str
    folders: tuple[str, ...]


def local_video(document: Mapping[str, Any]) -> list[str]:
    """Returns the path of a row's video, in the list that lmms-eval asks for."""
    return [document[COLUMN]]


def rows_with_videos(
    files: list[pathlib.Path], root: pathlib.Path, videos: Videos, *, what: str
) -> Iterator[dict[str, Any]]:
    """Yields the rows of parquet files, each with the path of its video.

    Args:
      files: of the table.
      root: of the copy.
      videos: where they lie.
      what: begins messages.

    Raises:
      MresError: no such column; rows whose video is not there, or is none to lmms-eval, counted.
    """
    count, bad = 0, []
    for file in files:
        table = Table(file, what=what)
        if videos.column not in table.columns:
            raise MresError(
                f"{what} {file}: no column {videos.column}; it has {', '.join(table.columns)}."
            )
        for group in range(len(table.group_rows)):
            for row in table.read(group):
                count += 1
                try:
                    yield row | {COLUMN: _find(row, root, videos, str(count - 1))}
                except BadRowError as error:
                    bad.append(str(error))
    if bad:
        raise MresError(f"{len(bad):,} of {count:,} rows without video: {' '.join(bad[:_NAMED])}")


def _find(row: Mapping[str, Any], root: pathlib.Path, videos: Videos, number: str) -> str:
    name = row[videos.column]
    if not isinstance(name, str) or not name:
        raise BadRowError(number, f"{videos.column} is {name!r}, no name", "missing video")
    path = find_video(root, videos.folders, pathlib.PurePath(name).stem, number)
    if path.endswith(".webm"):
        raise BadRowError(number, f"lmms-eval takes {path} for sound; make it an mp4", "bad video")
    return path

"""All arms of an evaluation: one summary, one table, one figure."""

import pathlib
from collections.abc import Sequence

from mres_jax.evaluation.arms.figures import draw_points
from mres_jax.evaluation.arms.folders import FORMAT, SUMMARY, to_bytes
from mres_jax.evaluation.arms.points import points_csv, points_of
from mres_jax.evaluation.arms.results import ArmResult

TABLE, FIGURE = "results.csv", "scores.png"
OVERVIEW = (SUMMARY, TABLE, FIGURE)  # the summary first: what has none is not done


def overview_files(
    name: str, results: Sequence[ArmResult], *, root: pathlib.Path
) -> dict[str, bytes]:
    """Returns what stands beside the arms, by file name.

    Args:
      name: of the evaluation.
      results: its arms.
      root: its directory.
    """
    arms = [
        {
            "folder": str(result.folder.relative_to(root)),
            **{key: value for key, value in result.summary.items() if key != "format"},
        }
        for result in results
    ]
    points = points_of(results)
    return {
        TABLE: points_csv(points).encode(),
        FIGURE: draw_points(points, note=name),
        SUMMARY: to_bytes({"format": FORMAT, "name": name, "arms": arms}),
    }

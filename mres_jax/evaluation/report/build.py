"""The files of a report."""

import pathlib
from collections.abc import Sequence

from mres_jax.errors import MresError
from mres_jax.evaluation.arms.points import points_csv, points_of
from mres_jax.evaluation.arms.results import ArmResult, read_run
from mres_jax.evaluation.report.compare import compare_all, comparisons_csv
from mres_jax.evaluation.report.groups import bins_csv, bins_of
from mres_jax.evaluation.report.page import make_page
from mres_jax.evaluation.report.seen import show_flips
from mres_jax.files import check_directory, write_together


def make_report(
    runs: Sequence[str], out: str | pathlib.Path, *, against: str | None = None, flips: int = 8
) -> list[pathlib.Path]:
    """Writes a page about evaluations and the tables behind it.

    Args:
      runs: directories of evaluations.
      out: directory for `index.html`, `points.csv`, `differences.csv`, `groups.csv`.
      against: `[MODEL/]POLICY` that all arms are compared with; None takes the first.
      flips: questions shown of each comparison.

    Returns:
      The files.

    Raises:
      MresError: a run that is not complete or damaged; an arm that is not there.
    """
    check_directory(out)
    if flips < 0:
        raise MresError(f"report: --flips {flips} must not be negative.")
    results = [result for run in runs for result in read_run(run)]
    _check_apart(results)
    points, bins = points_of(results), bins_of(results)
    comparisons = compare_all(results, against)
    tables = {
        "points.csv": points_csv(points),
        "differences.csv": comparisons_csv(comparisons),
        "groups.csv": bins_csv(bins),
    }
    shown = [(each, *show_flips(each, flips)) for each in comparisons if not each.type]
    page = make_page(results, points, comparisons, bins, shown, tables)
    files = {"index.html": page.encode()}
    files |= {name: text.encode() for name, text in tables.items()}
    return write_together(out, files)


def _check_apart(results: Sequence[ArmResult]) -> None:
    """Raises `MresError` where one arm is given twice: it would be counted twice."""
    seen: dict[tuple, ArmResult] = {}
    for each in results:
        key = (each.run, each.model, each.task, each.policy, each.seed)
        other = seen.setdefault(key, each)
        if other is not each:
            raise MresError(
                f"report: {other.folder} and {each.folder} are both {each.run}, {each.model}, "
                f"{each.policy} on {each.task} with seed {each.seed}. Give each once, or give "
                "evaluations names of their own."
            )

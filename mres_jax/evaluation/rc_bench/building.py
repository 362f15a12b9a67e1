"""Rows of a user's -> a set: chosen, looked at, fitted, written."""

import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from PIL import Image

from mres_jax.data.images import decode_image
from mres_jax.data.rows.summary import Finding
from mres_jax.errors import BadImageError, MresError
from mres_jax.evaluation.rc_bench.annotations import Annotated, Source, guess_metric
from mres_jax.evaluation.rc_bench.balance import Chosen, choose_all, choose_balanced
from mres_jax.evaluation.rc_bench.cuts import Cuts
from mres_jax.evaluation.rc_bench.fits import apply_fit
from mres_jax.evaluation.rc_bench.folders import RCSet, write_set
from mres_jax.evaluation.rc_bench.items import Item, Metric

SCALES = (0.5, 2.0)  # factors per side that a fitted picture may be resized by


def build_set(
    source: Source,
    folder: str | os.PathLike,
    *,
    cuts: Cuts,
    per_cell: int | None,
    seed: int = 0,
    scales: tuple[float, float] = SCALES,
    metric: Metric | None = None,
    skip_bad: bool = False,
) -> RCSet:
    """Writes a set of a user's pictures.

    Args:
      source: of the rows.
      folder: new.
      cuts: of the cells.
      per_cell: rows in each cell, see `choose_balanced`; None takes all rows as they are.
      seed: of the choice.
      scales: least and largest factor per side that a picture may be resized by.
      metric: of rows that name none; None guesses from their answers.
      skip_bad: leave bad rows out, counted on the card, instead of refusing them.

    Raises:
      MresError: bad rows, if refused; none left; a cell that cannot be filled.
    """
    if source.bad and not skip_bad:
        raise refusal(source.name, source.bad, "leave them out with --skip-bad")
    choice = _Choice(cuts=cuts, per_cell=per_cell, seed=seed, scales=scales)
    chosen, damaged = _choose_whole(source, choice, skip_bad)
    made = {
        "name": os.path.basename(os.path.abspath(folder)),
        "origin": "as given" if per_cell is None else "balanced",
        "source": os.path.basename(source.name),
        "rows left out": _left_out(source, damaged) or "none",
        "pictures padded or resized": sum(each.fit is not None for each in chosen),
        "metrics guessed": 0 if metric else sum(each.row.metric is None for each in chosen),
    }
    if per_cell is not None:
        made |= {"seed": seed, "scales": list(scales)}
    return write_set(folder, _items(source, chosen, metric), cuts=cuts, made=made)


class _Choice(NamedTuple):
    """Which rows are wanted; see `build_set`."""

    cuts: Cuts
    per_cell: int | None
    seed: int
    scales: tuple[float, float]

    def of(self, rows: Sequence[Annotated], source: str) -> list[Chosen]:
        """Returns the rows for each cell."""
        if not rows:
            raise MresError(f"rcbench {source}: there is no row that can be used.")
        if self.per_cell is None:
            return choose_all(rows, self.cuts)
        return choose_balanced(
            rows,
            self.cuts,
            per_cell=self.per_cell,
            seed=self.seed,
            scales=self.scales,
            source=source,
        )


def _choose_whole(source: Source, choice: _Choice, skip_bad: bool) -> tuple[list[Chosen], int]:
    """Rows whose pictures can all be decoded, and how many others had to go for that."""
    rows = list(source.rows)
    while True:
        chosen = choice.of(rows, source.name)
        bad = _damaged(source, [each.row for each in chosen])
        if not bad:
            return chosen, len(source.rows) - len(rows)
        if not skip_bad:
            name, reason = next(iter(bad.items()))
            raise MresError(
                f"rcbench {source.name}: {len(bad)} damaged of {len(chosen)} pictures (first: row "
                f"{name}: {reason.rstrip('.')}); leave them out with --skip-bad."
            )
        rows = [row for row in rows if row.id not in bad]


def _left_out(source: Source, damaged: int) -> dict[str, int]:
    counts = {finding.kind: finding.count for finding in source.bad}
    if damaged:
        counts["bad picture"] = counts.get("bad picture", 0) + damaged
    return counts


def refusal(name: str, findings: Sequence[Finding], cure: str) -> MresError:
    """Returns the error that names and counts what is wrong with rows."""
    kinds = ", ".join(map(str, findings))
    row, reason = findings[0].first[0]
    return MresError(f"rcbench {name}: {kinds}; row {row}: {reason.rstrip('.')}; {cure}.")


def _damaged(source: Source, rows: Sequence[Annotated]) -> dict[str, str]:
    """Rows whose pictures cannot be decoded, with the reason."""
    known: dict[str, str | None] = {}
    for row in rows:
        if row.picture not in known:
            known[row.picture] = _damage(source, row)
    return {row.id: reason for row in rows if (reason := known[row.picture])}


def _damage(source: Source, row: Annotated) -> str | None:
    try:
        decode_image(source.picture(row), name=row.picture)
    except BadImageError as error:
        return str(error)
    return None


def _items(
    source: Source, chosen: Sequence[Chosen], metric: Metric | None
) -> Iterator[tuple[Item, bytes]]:
    for row, cell, fit in chosen:
        content: Any = source.picture(row)
        size = row.size
        if fit is not None:
            buffer = io.BytesIO()
            pixels = apply_fit(decode_image(content, name=row.picture), fit)
            Image.fromarray(pixels).save(buffer, format="png")
            content, size = buffer.getvalue(), fit.size
        item = Item(
            id=row.id,
            question=row.question,
            answers=row.answers,
            metric=row.metric or metric or guess_metric(row.answers),
            type=row.type,
            area_bin=cell[0],
            ratio_bin=cell[1],
            size=size,
            source=row.picture,
            fit=fit,
            sha256=hashlib.sha256(content).hexdigest(),
        )
        yield item, content

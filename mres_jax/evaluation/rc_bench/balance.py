"""Chooses rows so that every cell has as many: pictures as they are first, fitted ones then."""

import random
from collections.abc import Sequence
from typing import NamedTuple

from mres_jax.errors import MresError
from mres_jax.evaluation.rc_bench.annotations import Annotated
from mres_jax.evaluation.rc_bench.cuts import CELLS, Cuts
from mres_jax.evaluation.rc_bench.fits import fit_cost, plan_fit
from mres_jax.evaluation.rc_bench.items import Fit

_NAMED = 3  # cells that an error names


class Chosen(NamedTuple):
    """A row for a cell, and what must be done to its picture."""

    row: Annotated
    cell: tuple[str, str]
    fit: Fit | None


def choose_all(rows: Sequence[Annotated], cuts: Cuts) -> list[Chosen]:
    """Returns every row in the cell of its own picture."""
    return [Chosen(row, cuts.cell(row.size), None) for row in rows]


def choose_balanced(
    rows: Sequence[Annotated],
    cuts: Cuts,
    *,
    per_cell: int,
    seed: int,
    scales: tuple[float, float],
    source: str,
) -> list[Chosen]:
    """Returns as many rows for every cell, each about another picture, in the order of `rows`.

    A cell takes pictures that fall into it by themselves, drawn by the seed. Where they are too
    few, the cell with the fewest candidates is filled first, with the pictures to which least has
    to be done.

    Args:
      rows: to choose from.
      cuts: of the cells.
      per_cell: rows for each.
      seed: of the choice.
      scales: least and largest factor per side; equal to 1 where nothing may be resized.
      source: what errors call it.

    Raises:
      MresError: a cell cannot be filled.
    """
    pool = _one_per_picture(rows, seed)
    chosen: dict[tuple[str, str], list[Chosen]] = {cell: [] for cell in CELLS}
    rest = []
    for row in pool:
        cell = cuts.cell(row.size)
        if len(chosen[cell]) < per_cell:
            chosen[cell].append(Chosen(row, cell, None))
        else:
            rest.append(row)
    _fill(chosen, rest, cuts, per_cell, seed, scales)
    short = {cell: len(some) for cell, some in chosen.items() if len(some) < per_cell}
    if short:
        raise _too_few(short, per_cell, len(pool), source)
    return sorted((c for some in chosen.values() for c in some), key=lambda c: c.row.number)


def _one_per_picture(rows: Sequence[Annotated], seed: int) -> list[Annotated]:
    """Rows in an order drawn by the seed, one for each picture."""
    drawn = list(rows)
    random.Random(seed).shuffle(drawn)
    return list({row.picture: row for row in reversed(drawn)}.values())[::-1]


def _fill(
    chosen: dict[tuple[str, str], list[Chosen]],
    rest: Sequence[Annotated],
    cuts: Cuts,
    per_cell: int,
    seed: int,
    scales: tuple[float, float],
) -> None:
    candidates = {}
    for cell in (cell for cell in CELLS if len(chosen[cell]) < per_cell):
        found = [(row, _plan(row, cell, cuts, seed, scales)) for row in rest]
        some = [(fit_cost(fit), row.id, row, fit) for row, fit in found if fit is not None]
        candidates[cell] = sorted(some, key=lambda each: each[:2])
    used: set[str] = set()
    for cell in sorted(candidates, key=lambda cell: len(candidates[cell])):
        for _, name, row, fit in candidates[cell]:
            if len(chosen[cell]) == per_cell:
                break
            if name not in used:
                used.add(name)
                chosen[cell].append(Chosen(row, cell, fit))


def _plan(
    row: Annotated, cell: tuple[str, str], cuts: Cuts, seed: int, scales: tuple[float, float]
) -> Fit | None:
    rng = random.Random(f"{seed}/{row.id}/{'/'.join(cell)}")
    return plan_fit(row.size, cell, cuts, rng, scales=scales)


def _too_few(
    short: dict[tuple[str, str], int], per_cell: int, num_pictures: int, source: str
) -> MresError:
    worst = sorted(short, key=lambda cell: short[cell])[:_NAMED]
    named = ", ".join(f"{'/'.join(cell)} {short[cell]}" for cell in worst)
    return MresError(
        f"rcbench {source}: {num_pictures:,} pictures fill {35 - len(short)} of 35 cells with "
        f"{per_cell}; {len(short)} are short (fewest: {named}). Add pictures, ask for fewer "
        "(--per-cell), allow more resizing (--scales), or keep all as they are (--all)."
    )

"""What a set says about itself, for people."""

from collections.abc import Mapping
from typing import Any

from mres_jax.evaluation.rc_bench.cuts import AREAS, RATIOS

_ORIGINS = {
    "generated": "Generated documents; not the pictures of the RC-Bench paper, which were never "
    "released. Scores on this set are not scores on RC-Bench.",
    "balanced": "The user's pictures, selected, padded and resized until every cell has as many; "
    "not the pictures of the RC-Bench paper, which were never released. Scores on this set are "
    "not scores on RC-Bench.",
    "as given": "Pictures and questions as they were given, sorted into cells and otherwise "
    "untouched. Whether they are the official RC-Bench is for the giver to say: {official}.",
}
_OFFICIAL = 50  # items a cell, 1,750 in all


def describe(card: Mapping[str, Any]) -> str:
    """Returns the README of a set.

    Args:
      card: its contents.
    """
    counts = card["cells"]
    full = len(counts) == len(AREAS) * len(RATIOS) and set(counts.values()) == {_OFFICIAL}
    official = f"its counts {'are' if full else 'are not'} the official 35 x {_OFFICIAL}"
    lines = [
        f"# {card['name']}",
        "",
        _ORIGINS[card["origin"]].format(official=official),
        "",
        f"{card['num_items']:,} questions, one line each in `items.jsonl`; the pictures, in the "
        "same order, in `pictures.array_record`.",
        "",
        *_table(counts),
        "",
        f"Cuts between areas, px: {_numbers(card['cuts']['areas'])}. Cuts between ratios, width / "
        f"height: {_numbers(card['cuts']['ratios'])}. The paper does not print its cuts.",
    ]
    rest = {name: card[name] for name in card if name not in _KNOWN}
    lines += ["", "Made with:", "", *(f"- {name}: {value}" for name, value in rest.items()), ""]
    return "\n".join(lines)


_KNOWN = ("format", "name", "origin", "num_items", "cuts", "cells", "items_sha256")


def _table(counts: Mapping[str, int]) -> list[str]:
    rows = [["", *RATIOS]]
    rows += [[area, *(str(counts.get(f"{area}/{r}", 0)) for r in RATIOS)] for area in AREAS]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:,.10g}" for value in values)

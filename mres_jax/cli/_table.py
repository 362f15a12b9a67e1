"""Tables: drawn on a terminal, plain columns elsewhere."""

import re
import sys
from collections.abc import Sequence

_NUMBER = re.compile(r"-|[\d.,]+ ?%?")


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "") -> None:
    """Prints rows under headers; columns whose cells are all numbers stand to the right."""
    headers, rows = [printable(h) for h in headers], [[printable(c) for c in row] for row in rows]
    title = printable(title)
    if sys.stdout.isatty():
        _print_rich(headers, rows, title)
    else:
        print(plain_table(headers, rows, title=title))


def plain_table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "") -> str:
    """Returns a table as lines of text, two blanks between columns.

    Example:
      >>> print(plain_table(["policy", "tokens"], [["native", "924"], ["scale:0.5", "210"]]))
      policy     tokens
      native        924
      scale:0.5     210
    """
    columns = list(zip(headers, *rows, strict=True))
    widths = [max(len(cell) for cell in column) for column in columns]
    right = [_is_number_column(column[1:]) for column in columns]
    lines = [title] if title else []
    for cells in (headers, *rows):
        padded = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(cells, widths, right, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def printable(text: str) -> str:
    """Returns a text that cannot move the cursor: what a model writes is not trusted.

    Example:
      >>> printable("a\\nb\\x1b[2J")
      'a b\\ufffd[2J'
    """
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))


def _is_number_column(cells: Sequence[str]) -> bool:
    return bool(cells) and all(_NUMBER.fullmatch(cell) for cell in cells)


def _print_rich(headers: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left")
    for index, header in enumerate(headers):
        numbers = _is_number_column([row[index] for row in rows])
        table.add_column(header, justify="right" if numbers else "left")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # answers are no markup
    Console().print(table)

"""Tables as CSV."""

import csv
import io
from collections.abc import Mapping, Sequence


def to_csv(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Returns a table as CSV; a text that a spreadsheet would run as a formula is quoted."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(headers)
    writer.writerows([[_harmless(cell) for cell in row] for row in rows])
    return buffer.getvalue()


def records_to_csv(rows: Sequence[Mapping[str, object]]) -> bytes:
    """Returns rows that all have the columns of the first one, as the content of a file."""
    return to_csv(list(rows[0]), [[row[name] for name in rows[0]] for row in rows]).encode()


def _harmless(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "@") else cell

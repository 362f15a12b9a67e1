"""What the kernels took when they were last looked at, a line per case, and what has grown."""

import json
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

FOLDER = pathlib.Path(__file__).parent / "budgets"
SLACK = 1.03


def over_budget(
    kept: Mapping[str, Mapping[str, Any]],
    found: Mapping[str, Mapping[str, Any]],
    *,
    shown: Collection[str],
) -> list[str]:
    """Returns a line for each value that grew by more than `SLACK`, and for each unknown case.

    Args:
      kept: values by name of case.
      found: the same, of today.
      shown: values that are no costs.
    """
    lines = []
    for name, values in found.items():
        if name not in kept:
            lines.append(f"{name}: no budget; run with --write and look at it.")
            continue
        for key in values.keys() - set(shown):
            if values[key] > kept[name][key] * SLACK:
                lines.append(f"{name}: {key} is {values[key]:,}, and was {kept[name][key]:,}.")
    return lines


def render(table: Mapping[str, Any], indent: str = "") -> str:
    """JSON with one line for each innermost object."""
    if not any(isinstance(value, Mapping) for value in table.values()):
        return json.dumps(table)
    lines = [f"{indent} {json.dumps(k)}: {render(v, indent + ' ')}" for k, v in table.items()]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"

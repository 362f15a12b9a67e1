"""Writes docs/run_fields.md: every field of a run file, from the dataclasses themselves.

python scripts/run_fields.py     after a field was added, removed or described anew
"""

import ast
import dataclasses
import inspect
import pathlib
import re
import textwrap
from typing import Any

from mres_jax import config
from mres_jax.config._values import field_types, type_name
from mres_jax.data.types import Rung

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "run_fields.md"
PARTS = (  # what a run file is made of, and where in it
    (config.Run, "what `get_config()` returns"),
    (config.Rows, "in `data`"),
    (config.Documents, "in `data`"),
    (Rung, "in `ladder`"),
    (config.OptimizerConfig, "`optimizer`"),
    (config.Schedule, "`schedule`"),
    (config.LoRA, "`peft`"),
    (config.Evaluate, "`evaluate`"),
    (config.CheckpointConfig, "`checkpoint`"),
    (config.MeshConfig, "`mesh`"),
    (config.EvalRun, "what `get_config()` returns for `mres eval`"),
    (config.Generated, "in its `tasks`"),
    (config.QuestionFile, "in its `tasks`"),
    (config.Benchmark, "in its `tasks`"),
    (config.AllocatorRun, "what `get_config()` returns where an allocator learns"),
    (config.Questions, "its `data`"),
    (config.BackboneTraining, "its `backbone_training`"),
    (config.ServerConfig, "its `server`"),
)
HEAD = """# Fields of a run file

Made from the dataclasses by `python scripts/run_fields.py`. How they are set, from a file and from
the command line, and what they are called elsewhere: [run files](guides/run_files.md). A run file
describes a [training](guides/training.md), an [evaluation](guides/eval.md) or the training of an
[allocator by rewards](guides/rl.md).
"""


def page() -> str:
    """Returns the page."""
    return HEAD + "".join(_section(*part) for part in PARTS)


def field_names() -> set[str]:
    """Returns every field as a run file's reader writes it, such as `schedule.epochs`."""
    prefixes = {"Run": "", "OptimizerConfig": "optimizer.", "LoRA": "peft."}
    prefixes |= {
        "Schedule": "schedule.",
        "Evaluate": "evaluate.",
        "CheckpointConfig": "checkpoint.",
        "MeshConfig": "mesh.",
    }
    return {
        prefixes.get(part.__name__, f"{part.__name__}.") + field.name
        for part, _ in PARTS
        for field in dataclasses.fields(part)
    }


def _section(part: type, place: str) -> str:
    summary = (inspect.getdoc(part) or "").split("\n\nAttributes:")[0]
    summary = summary.split("\n\nReference:")[0]
    types, said = field_types(part), descriptions(part)
    rows = [
        f"| `{field.name}` | {_cell(type_name(types[field.name]))} | {_default(field)} "
        f"| {_cell(said[field.name])} |"
        for field in dataclasses.fields(part)
    ]
    return "\n".join(
        [
            f"\n## {part.__name__}",
            f"\n{place[0].upper()}{place[1:]}: {_prose(summary)}\n",
            "| field | is | default | means |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def descriptions(part: type) -> dict[str, str]:
    """Returns what the docstring, or the comment behind it, says of each field.

    Raises:
      ValueError: nothing is said of a field.
    """
    source = textwrap.dedent(inspect.getsource(part))
    (body,) = ast.parse(source).body
    lines = source.splitlines()
    said = dict.fromkeys((field.name for field in dataclasses.fields(part)), "")
    for node in body.body:  # type: ignore[attr-defined]
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            _, _, comment = lines[node.end_lineno - 1].partition("  # ")
            said[node.target.id] = comment
    _, _, attributes = (inspect.getdoc(part) or "").partition("Attributes:\n")
    for name, text in re.findall(r"^  (\w+): (.*(?:\n    .*)*)", attributes, re.MULTILINE):
        said[name] = " ".join(text.split()).removesuffix(".")
    silent = [name for name in said if not said[name]]
    if silent:
        raise ValueError(f"{part.__name__}: say behind each field what it is: {', '.join(silent)}.")
    return said


def _default(field: dataclasses.Field) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return _value(field.default_factory())
    return "needed" if field.default is dataclasses.MISSING else _value(field.default)


def _value(value: Any) -> str:
    if isinstance(value, dict) and len(value) > 3 and len(set(value.values())) == 1:
        return f"`{next(iter(value.values()))}` each of `{', '.join(value)}`"
    return f"`{value!r}`" if value not in ({}, ()) else "none"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _prose(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    PAGE.write_text(page())

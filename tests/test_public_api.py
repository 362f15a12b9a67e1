"""The names that users may build on, frozen in `golden/public_api.txt`.

A change is made on purpose: write its line into CHANGELOG.md, then run
`.venv/bin/python tests/test_public_api.py >tests/golden/public_api.txt`.
"""

import argparse
import ast
import importlib
import inspect
import pathlib
import re
import tomllib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[1]
GOLDEN = ROOT / "tests/golden/public_api.txt"
PACKAGES = (ROOT / "mres_jax", ROOT / "kernels/mres_kernels")


def public_names() -> Iterator[str]:
    """What packages export as `X as X`, and what the modules beside the rooms define."""
    for package in PACKAGES:
        for file in sorted(package.rglob("*.py")):
            parts = file.with_suffix("").relative_to(package.parent).parts
            module = ".".join(part for part in parts if part != "__init__")
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ImportFrom):
                    yield from (f"{module}.{a.name}" for a in node.names if a.name == a.asname)
        for file in sorted(package.glob("[!_]*.py")):
            for node in ast.parse(file.read_text()).body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_":
                    yield f"{package.name}.{file.stem}.{node.name}"


def commands() -> Iterator[str]:
    """Commands of `mres` with their options."""
    from mres_jax.cli._parser import make_parser

    for action in make_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, parser in action.choices.items():
                options = [option for a in parser._actions for option in a.option_strings]
                yield " ".join(["mres", name, *(o for o in options if o.startswith("--"))])


def listed() -> list[str]:
    return [*sorted({*public_names()}), *sorted(commands())]


def test_public_names_change_on_purpose_only():
    now, frozen = set(listed()), set(GOLDEN.read_text().splitlines())
    cure = __doc__.partition("\n\n")[2]
    assert not now - frozen, f"new: {sorted(now - frozen)}. {cure}"
    assert not frozen - now, f"gone: {sorted(frozen - now)}. {cure}"


@pytest.mark.parametrize("name", sorted({*public_names()}))
def test_public_names_are_documented(name):
    module, _, attribute = name.rpartition(".")
    value = getattr(importlib.import_module(module), attribute)
    if inspect.isclass(value) or inspect.isroutine(value):
        assert inspect.getdoc(value), f"{name} has no docstring"


def test_a_name_has_one_import_path():
    """No room exports a name that another room exports too, apart from ops for the kernels."""
    homes: dict[str, list[str]] = {}
    for name in {*public_names()}:
        if not name.startswith("mres_kernels"):
            home, _, last = name.rpartition(".")
            homes.setdefault(last, []).append(home)
    doubled = {name: sorted(rooms) for name, rooms in homes.items() if len(rooms) > 1}
    doubled.pop("load", None)  # `mres_jax.load` is `mres_jax.inference.load`
    assert not doubled


def test_changelog_begins_with_what_is_unreleased_and_knows_the_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert headings[1:] == [] or headings[1].startswith(f"[{version}]")


if __name__ == "__main__":
    print("\n".join(listed()))

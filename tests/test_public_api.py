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

ROOT = pathlib.Path(__file__).parents[1]
GOLDEN = ROOT / "tests/golden/public_api.txt"
PACKAGES = (ROOT / "mres_jax", ROOT / "kernels/mres_kernels")


def public_names() -> Iterator[str]:
    """What windows export as `X as X`, and what the modules beside the rooms define.

    A window is a file of imports alone: mostly an `__init__.py`.
    """
    for package in PACKAGES:
        for file in sorted(package.rglob("*.py")):
            parts = file.with_suffix("").relative_to(package.parent).parts
            module = ".".join(part for part in parts if part != "__init__")
            body = ast.parse(file.read_text()).body
            imports = [node for node in body if isinstance(node, ast.ImportFrom)]
            if len(imports) == len(body) - 1:  # and a docstring
                names = [alias for node in imports for alias in node.names]
                yield from (f"{module}.{name.name}" for name in names if name.name == name.asname)
            elif file.parent == package and not file.stem.startswith("_"):
                defined = [
                    node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)
                ]
                yield from (f"{module}.{node.name}" for node in defined if node.name[0] != "_")
    yield "mres_jax.load"


def commands() -> Iterator[str]:
    """Commands of `mres` with their options."""
    from mres_jax.cli._parser import make_parser

    yield from _options("mres", make_parser())


def _options(words: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, each in action.choices.items():
                options = [option for a in each._actions for option in a.option_strings]
                yield " ".join([words, name, *(o for o in options if o.startswith("--"))])
                yield from _options(f"{words} {name}", each)


def listed() -> list[str]:
    return [*sorted(set(public_names())), *sorted(commands())]


def test_public_names_change_on_purpose_only():
    now, frozen = set(listed()), set(GOLDEN.read_text().splitlines())
    cure = __doc__.partition("\n\n")[2]
    assert not now - frozen, f"new: {sorted(now - frozen)}. {cure}"
    assert not frozen - now, f"gone: {sorted(frozen - now)}. {cure}"


def test_public_names_are_documented():
    for name in public_names():
        module, _, attribute = name.rpartition(".")
        value = getattr(importlib.import_module(module), attribute)
        if inspect.isclass(value) or inspect.isroutine(value):
            assert inspect.getdoc(value), f"{name} has no docstring"


def test_windows_say_what_they_export_in_the_one_form_that_is_read_here():
    for package in PACKAGES:
        for file in sorted(package.rglob("__init__.py")):
            assert "__all__" not in file.read_text(), f"{file}: write `X as X`"


def test_a_name_has_one_import_path():
    """No room exports a name that another room exports too, apart from ops for the kernels."""
    homes: dict[str, list[str]] = {}
    for name in set(public_names()):
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

"""The import directions of docs/architecture.md, on the syntax tree and in a fresh Python."""

import ast
import importlib.metadata
import itertools
import pathlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TOPS = {"mres_jax": ROOT, "mres_kernels": ROOT / "kernels"}
GROUND = {"errors", "files", "geometry", "interrupts"}  # no arrays of jax
LEVEL_5 = ("training", "evaluation", "serving", "harness")
LEVEL_1 = GROUND | {
    "typing",
    "protocols",
    "quantities",
    "coordinates",
    "scoring",
    "rewards",
    "config",
}
MAY_IMPORT = {  # room -> rooms, whether at the top of a file or inside a function
    "__init__": {"inference"},
    "errors": set(),
    "typing": set(),
    "geometry": {"errors"},
    "files": {"errors"},
    "interrupts": set(),
    "protocols": GROUND,
    "quantities": set(),
    "coordinates": GROUND,
    "scoring": GROUND | {"quantities", "coordinates"},
    "rewards": GROUND | {"scoring", "quantities"},
    "config": GROUND,
    "ops": GROUND | {"typing", "mres_kernels"},
    "nn": GROUND | {"typing", "ops"},
    "data": GROUND | {"protocols", "quantities", "coordinates", "scoring", "config"},
    "resolution": LEVEL_1 | {"data", "nn", "ops"},
    "models": LEVEL_1 | {"data", "nn", "ops"},
    "inference": LEVEL_1 | {"models", "resolution", "data", "nn", "ops"},
    "training": LEVEL_1 | {"inference", "models", "resolution", "data", "nn", "ops"},
    "evaluation": LEVEL_1 | {"inference", "models", "resolution", "data"},
    "serving": LEVEL_1 | {"inference", "models", "resolution", "data"},
    "harness": LEVEL_1 | {"inference", "models", "resolution", "data"},
    "cli": LEVEL_1
    | {"training", "evaluation", "serving", "inference", "models", "resolution", "data"},
    "mres_kernels": set(),
}
MAY_IMPORT["testing"] = set(MAY_IMPORT) - {
    "__init__",
    "cli",
}  # for tests, ours and users': nobody imports it
WITHOUT_JAX = GROUND | {
    "protocols",
    "quantities",
    "coordinates",
    "scoring",
    "rewards",
    "config",
    "data",
}
ARRAY_LIBRARIES = {"jax", "jaxlib", "flax", "optax", "orbax", "chex"}
SLOW_OR_EXTRAS = {
    "torch",
    "transformers",
    "wandb",
    "tensorboardX",
    "pyarrow",
    "tensorflow_datasets",
}


def source_files() -> list[pathlib.Path]:
    return [file for name, top in TOPS.items() for file in sorted((top / name).rglob("*.py"))]


def room_of_file(file: pathlib.Path) -> str:
    parts = file.with_suffix("").relative_to(ROOT).parts
    return "mres_kernels" if parts[0] == "kernels" else parts[1]


def modules_imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_imported(file: pathlib.Path) -> set[str]:
    names = modules_imported(ast.parse(file.read_text()))
    ours = [(*name.split("."), "__init__") for name in names if name.partition(".")[0] in TOPS]
    return {top if top == "mres_kernels" else room for top, room, *_ in ours}


def strangers_imported(tree: ast.AST) -> set[str]:
    names = {name.partition(".")[0] for name in modules_imported(tree)}
    return names - set(TOPS) - set(sys.stdlib_module_names)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_point_down(room):
    files = [file for file in source_files() if room_of_file(file) == room]
    assert files, f"no file for {room}"
    for file in files:
        wrong = rooms_imported(file) - MAY_IMPORT[room] - {room}
        assert not wrong, f"{file.relative_to(ROOT)}: {room} must not import {sorted(wrong)}"


def test_every_room_has_its_place():
    assert {room_of_file(file) for file in source_files()} == set(MAY_IMPORT)


def test_rooms_that_never_meet():
    pairs = [("resolution", "models"), *itertools.combinations(LEVEL_5, 2)]
    for one, other in pairs:
        assert other not in MAY_IMPORT[one]
        assert one not in MAY_IMPORT[other]


def test_only_ops_calls_the_kernels():
    rooms = {
        room_of_file(file) for file in source_files() if "mres_kernels" in rooms_imported(file)
    }
    assert rooms - {"testing"} == {"ops", "mres_kernels"}


def test_the_host_side_names_no_array_library():
    for file in source_files():
        if room_of_file(file) in WITHOUT_JAX:
            wrong = strangers_imported(ast.parse(file.read_text())) & ARRAY_LIBRARIES
            assert not wrong, f"{file.relative_to(ROOT)} must not import {sorted(wrong)}"


def test_heavy_strangers_are_imported_inside_functions():
    for file in source_files():
        tree = ast.parse(file.read_text())
        top = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef)]
        wrong = strangers_imported(ast.Module(top, [])) & SLOW_OR_EXTRAS
        assert not wrong, f"{file.relative_to(ROOT)} imports {sorted(wrong)} at its top"


def names_declared(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w-]", line)[0].lower() for line in requirements}


def distributions_imported(files: list[pathlib.Path]) -> dict[str, set[str]]:
    """Returns, for each stranger that the files import, the distributions it may come from."""
    providers = importlib.metadata.packages_distributions()
    names = {n for file in files for n in strangers_imported(ast.parse(file.read_text()))}
    return {n: {p.lower().replace("_", "-") for p in providers.get(n, [n])} for n in names}


def test_declared_dependencies_are_those_imported():
    """Nothing is used that is not declared, and nothing is declared that is not used."""
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = names_declared(tables["project"]["dependencies"])
    extras = tables["project"]["optional-dependencies"]
    optional = names_declared(
        [*extras["hf"], *extras["wandb"], *extras["parquet"], *extras["tfds"]]
    )
    imported = distributions_imported(source_files())
    for name, distributions in imported.items():
        assert distributions & (declared | optional), f"{name} is imported, but not declared"
    unused = declared.difference(*imported.values())
    assert not unused, "declared, but nothing imports it"
    groups = sum(tables["dependency-groups"].values(), tables["project"]["dependencies"])
    tests = [*(ROOT / "tests").rglob("*.py")]
    shared = {file.stem for file in tests}  # modules that tests share
    for name, distributions in distributions_imported(tests).items():
        known = name in shared or distributions & names_declared(groups)
        assert known, f"tests import {name}, not declared"


def live_imports(code: str) -> set[str]:
    """Returns what stands in `sys.modules` of a fresh Python after `code`."""
    code += "\nimport sys; print(); print(*{name.partition('.')[0] for name in sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(run.stdout.splitlines()[-1].split())


def test_importing_the_library_starts_nothing():
    heavy = live_imports("import mres_jax") & (ARRAY_LIBRARIES | {"numpy", "PIL"})
    assert not heavy


def test_the_host_side_runs_without_jax():
    files = [file for file in source_files() if room_of_file(file) in WITHOUT_JAX]
    modules = [".".join(file.with_suffix("").relative_to(ROOT).parts) for file in files]
    heavy = live_imports(f"import {', '.join(modules)}") & ARRAY_LIBRARIES
    assert not heavy


def test_help_is_light():
    code = (
        "from mres_jax.cli import main\nfor words in (['--help'], ['ask', '--help']): main(words)"
    )
    heavy = live_imports(code) & (ARRAY_LIBRARIES | {"numpy", "PIL", "matplotlib"})
    assert not heavy

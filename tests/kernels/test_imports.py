import ast
import pathlib
import sys

ALLOWED = {"jax", "numpy", "absl", "jaxtyping", "mres_kernels"}  # jaxtyping: optional


def test_kernels_stand_on_jax_and_numpy_alone():
    top = pathlib.Path(__file__).parents[2] / "kernels/mres_kernels"
    files = sorted(top.rglob("*.py"))
    assert files
    for file in files:
        names = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add((node.module or "").partition(".")[0])
        strangers = names - set(sys.stdlib_module_names) - ALLOWED
        assert not strangers, f"{file.relative_to(top)} imports {sorted(strangers)}"

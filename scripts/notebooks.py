"""The notebooks: pairs of a script, which is the source, and a notebook with its outputs.

python scripts/notebooks.py check            each notebook is that of its script
python scripts/notebooks.py run [NAME...]    runs them from top to bottom (all of them)
python scripts/notebooks.py write [NAME...]  the same, and keeps the outputs
"""

import os
import pathlib
import resource
import sys
import tempfile
import time

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from traitlets.config import Config

FOLDER = pathlib.Path(__file__).parents[1] / "docs" / "notebooks"
TIMEOUT = 1200  # s, of a cell, and of the kernel before the first one
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3"}  # slow compiles on busy machines belong in no notebook
KEPT = {"kernelspec", "jupytext"}  # of the metadata: the rest changes from machine to machine


def sources(notebook: nbformat.NotebookNode) -> list[tuple[str, str]]:
    """What a reader could change: kind and text of every cell."""
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def check(scripts: list[pathlib.Path]) -> list[str]:
    """Returns what is wrong with the pairs, a line each."""
    wrong = []
    for path in FOLDER.glob("*.ipynb"):
        if not path.with_suffix(".py").exists():
            wrong.append(f"{path.name}: there is no {path.stem}.py that it could come from")
    installs = set()
    for script in scripts:
        cells = sources(jupytext.read(script))
        installs.add(next(text for kind, text in cells if kind == "code"))
        pair = script.with_suffix(".ipynb")
        if not pair.exists() or sources(nbformat.read(pair, as_version=4)) != cells:
            wrong.append(
                f"{pair.name} is not what {script.name} says: make notebooks ARGS='write "
                f"{script.stem}'"
            )
    if len(installs) > 1:
        wrong.append("the cells that install differ; make them the same in all notebooks")
    return wrong


def run(script: pathlib.Path, *, keep: bool) -> str:
    """Runs one notebook in a folder of its own; says how long it took."""
    notebook = jupytext.read(script)
    start, spent = time.perf_counter(), processor_seconds()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as sockets:
        manager = {"transport": "ipc", "ip": f"{sockets}/kernel"}  # no port is opened
        NotebookClient(
            notebook,
            timeout=TIMEOUT,
            startup_timeout=TIMEOUT,
            kernel_name="python3",
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
            config=Config(KernelManager=manager),
        ).execute(env=os.environ | QUIET)
    if keep:
        notebook.metadata = {k: v for k, v in notebook.metadata.items() if k in KEPT}
        for number, cell in enumerate(notebook.cells):
            cell.id = f"{script.stem}-{number}"  # the same at every run
            cell.metadata.pop("execution", None)
        nbformat.write(notebook, script.with_suffix(".ipynb"))
    seconds, used = time.perf_counter() - start, processor_seconds() - spent
    return f"{seconds:.0f} s, {used:.0f} s of processor time"


def processor_seconds() -> float:
    """What the kernels that have ended took together."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main(action: str, names: list[str]) -> int:
    scripts = sorted(FOLDER.glob("*.py"))
    unknown = sorted(set(names) - {script.stem for script in scripts})
    if unknown:
        sys.exit(f"no notebook {', '.join(unknown)}; have {', '.join(s.stem for s in scripts)}")
    passed, failed = 0, 0
    for script in scripts:
        if action != "check" and (not names or script.stem in names):
            try:
                took = run(script, keep=action == "write")
            except (CellExecutionError, TimeoutError) as error:
                print(f"{script.stem}: failed\n{error}")
                failed += 1
            else:
                print(f"{script.stem}: {took}", flush=True)
                passed += 1
    wrong = check(scripts)
    print("".join(f"{line}\n" for line in wrong), end="")
    print(f"{passed} passed, {failed + len(wrong)} failed")
    return bool(failed or wrong)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["check"]:
            sys.exit(main("check", []))
        case ["run" | "write" as action, *names]:
            sys.exit(main(action, names))
        case _:
            sys.exit(__doc__)

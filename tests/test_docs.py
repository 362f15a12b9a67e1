"""What the documents say about the code is so."""

import dataclasses
import importlib.util
import json
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "experiments").rglob("*.md")]
)
STATES = ("not started", "partial", "shown")


def table_rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("| `")]


def test_axis_letters_are_the_same_in_code_and_documents():
    documented = table_rows((ROOT / "docs/axes.md").read_text())
    assert documented == table_rows((ROOT / "mres_jax/typing.py").read_text())
    letters = re.findall(r"\| `(\w)`", " ".join(documented))
    assert len(letters) == len(set(letters)) > 10


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)", document.read_text()):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), f"{document.name}: no {target}"


def open_placeholders(text: str) -> list[str]:
    """What was to be filled in: HTML comments, and capitals alone in a line outside of code."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"<!--.*?-->|^[A-Z][A-Z_ ]*[A-Z]$", prose, re.DOTALL | re.MULTILINE)


def test_placeholders_are_comments_and_lone_capitals_but_no_code():
    text = "Read this.\n<!-- demo\noutput -->\nNUMBERS\n\nMRES_DEBUG is read.\n```\nRESULTS\n```\n"
    assert open_placeholders(text) == ["<!-- demo\noutput -->", "NUMBERS"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_left_to_be_filled_in(document):
    assert not open_placeholders(document.read_text())


def test_commands_in_documents_exist():
    from mres_jax.cli._parser import _COMMANDS

    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in ("README.md", "CONTRIBUTING.md", "docs/quickstart.md"):
        text = (ROOT / document).read_text()
        code = "\n".join(re.findall(r"```[a-z]*\n.*?```|`[^`\n]+`", text, re.DOTALL))
        assert set(re.findall(r"\bmake ([a-z]+)", code)) <= targets, document
        assert set(re.findall(r"\bmres ([a-z]+)", code)) <= set(_COMMANDS), document


def test_status_lines_have_a_state_and_shown_ones_a_command():
    for line in (ROOT / "docs/status.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if re.fullmatch(r"\d+(\.\d+)?", cells[0]):
            number, _, state, *command = cells
            assert state.startswith(STATES), f"{number}: {state!r} is none of {STATES}"
            if state.startswith("shown"):
                assert command, f"{number} is shown by no command"
                assert "`" in command[0], f"{number} is shown by no command"


def load_script(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def code_blocks(document: str, language: str) -> list[str]:
    text = (ROOT / "docs" / document).read_text()
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [code for name, code in blocks if name == language]


def test_the_page_of_run_fields_is_what_the_dataclasses_say():
    page = load_script("run_fields").page()
    assert (ROOT / "docs/run_fields.md").read_text() == page, "python scripts/run_fields.py"


def test_every_dataclass_of_run_files_stands_on_their_page():
    from mres_jax import config

    public = [value for value in vars(config).values() if dataclasses.is_dataclass(value)]
    page = (ROOT / "docs/run_fields.md").read_text()
    missing = [part.__name__ for part in public if f"\n## {part.__name__}\n" not in page]
    assert not missing, "add them to PARTS of scripts/run_fields.py"
    assert len(public) > 15


def test_the_table_of_names_speaks_of_fields_that_exist():
    rows = table_rows((ROOT / "docs/guides/run_files.md").read_text())
    ours = [re.match(r"\| `([\w.]+)`", row)[1] for row in rows]
    assert len(ours) == len(set(ours)) > 40
    composed = {"peft", "schedule", "optimizer", "evaluate", "checkpoint"}
    known = load_script("run_fields").field_names()
    assert set(ours) <= known, set(ours) - known
    left_out = {name for name in known if "." not in name} - set(ours) - composed
    assert left_out == {
        *("model", "fill", "balance", "worker_timeout", "aux_loss_weight", "frozen_dtype", "smoke"),
    }, "add the name that others use, or a dash, or name it here"


def test_the_run_file_of_the_guide_and_its_overrides_are_taken(tmp_path):
    from mres_jax.config import load_run

    (source,) = code_blocks("guides/run_files.md", "python")
    (tmp_path / "mine.py").write_text(source)
    commands = code_blocks("guides/run_files.md", "")[0]
    overrides = re.findall(r"--[a-z_.0-9]+=\S+", commands)
    assert len(overrides) == 4
    run = load_run(str(tmp_path / "mine.py"), overrides)
    assert (run.optimizer.learning_rate, run.policies["native"]) == (3e-4, 1.0)
    assert (run.ladder[0].max_patches, run.peft.rank) == (2048, 8)


def test_the_policy_of_the_guide_keeps_its_word(monkeypatch):
    from mres_jax.geometry import Size
    from mres_jax.resolution.policies import POLICIES
    from mres_jax.testing import tiny_spec, tiny_tokenizer

    monkeypatch.setitem(POLICIES, "longest", None)
    names: dict = {"__name__": "guide"}
    for source in code_blocks("guides/add_policy.md", "python"):
        exec(source, names)
    policy, spec = names["policy"], tiny_spec(tiny_tokenizer())
    assert str(policy) == "longest:672"
    (small,) = names["Longest"](side=32)([Size(60, 40)], "", spec)
    (kept,) = policy([Size(60, 40)], "", spec)
    assert max(small.size) == 32 < max(kept.size)


def test_places_of_the_guide_are_where_it_says():
    from mres_jax.coordinates import to_picture

    (source,) = code_blocks("guides/troubleshooting.md", "python")
    names: dict = {}
    for line in source.splitlines():
        exec(line, names)
        if "y" in names:
            assert (names.pop("y"), names.pop("x")) == (270.0, 1440.0)
    assert names["to_picture"] is to_picture


NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.py"))


@pytest.mark.parametrize("script", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_that_of_its_script_and_was_run(script):
    cells = json.loads(script.with_suffix(".ipynb").read_text())["cells"]
    written = re.split(r"^# %%.*\n", script.read_text(), flags=re.MULTILINE)[1:]
    assert len(cells) == len(written)
    for cell, text in zip(cells, written, strict=True):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            source = re.sub("^(?!$)", "# ", source, flags=re.MULTILINE).replace("\n\n", "\n#\n")
        assert source == text.strip("\n")
    numbers = [cell["execution_count"] for cell in cells if cell["cell_type"] == "code"]
    assert numbers == list(range(1, len(numbers) + 1))

"""What the documents say about the code is so."""

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

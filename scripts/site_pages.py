"""Pages of the site that no one writes: the Python API, notebooks, and files outside of docs/.

mkdocs calls `on_config` and `on_files`, its reader of docstrings `Examples` (see mkdocs.yml).
"""

import base64
import json
import os
import pathlib
import re
from collections.abc import Iterator

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = pathlib.Path(__file__).parents[1]
PUBLIC = ROOT / "tests" / "golden" / "public_api.txt"  # kept by tests/test_public_api.py
NOTEBOOKS = ROOT / "docs" / "notebooks"
FIRST = ("quickstart", "checkpoints", "finetune", "allocator")
OUTSIDE = "files"  # folder of the site for what a document links to and does not stand in docs/
LINK = re.compile(r"\]\(([^)#\s]+)((?:#[^)\s]*)?)\)")
LANGUAGES = {".py": "python", ".sh": "bash", ".toml": "toml", ".yml": "yaml", ".json": "json"}


class Examples(griffe.Extension):
    """Docstrings here say `Example:`; the reader knows `Examples:`."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        """Takes each object as it was read."""
        del kwargs
        if obj.docstring is not None:
            text = obj.docstring.value
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)


def on_config(config: MkDocsConfig) -> None:
    """Puts a page for every public module and every notebook into the navigation."""
    chapters = {next(iter(chapter)): chapter for chapter in config.nav if isinstance(chapter, dict)}
    chapters["Python"]["Python"] += [{name: api_uri(name)} for name in public_names()]
    chapters["Start"]["Start"] += [{"Notebooks": [f"notebooks/{n}.md" for n in notebook_names()]}]


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Adds the pages, and sees to it that links out of docs/ lead to one."""
    for name, members in public_names().items():
        add(files, config, api_uri(name), api_page(name, members))
    for name in notebook_names():
        for uri, content in notebook_files(name):
            add(files, config, uri, content)
    pages = {"docs/" + file.src_uri: file for file in files.documentation_pages()}
    waiting = list(pages)
    while waiting:
        here = waiting.pop()
        text = pages[here].content_string
        for target in sorted(outside_targets(here, text) - pages.keys()):
            content = read_outside(target)
            add(files, config, site_uri(target), content)
            if isinstance(content, str):
                pages[target] = files.src_uris[site_uri(target)]
                waiting.append(target)
    for here, file in pages.items():
        file.content_string = with_site_links(here, file.content_string)


def add(files: Files, config: MkDocsConfig, uri: str, content: str | bytes) -> None:
    """Adds a file that is made here; those outside of docs/ are in no menu."""
    file = File.generated(config, uri, content=content)
    if uri.startswith(f"{OUTSIDE}/"):
        file.inclusion = InclusionLevel.NOT_IN_NAV
    files.append(file)


def public_names() -> dict[str, list[str]]:
    """Public names by the module that they are imported from."""
    modules: dict[str, list[str]] = {}
    for line in PUBLIC.read_text().splitlines():
        module, _, name = line.rpartition(".")
        if " " not in line and module not in ("mres_jax.cli", ""):
            modules.setdefault(module, []).append(name)
    return modules


def api_uri(module: str) -> str:
    """Where the page of a module stands."""
    return f"api/{module}.md"


def api_page(module: str, names: list[str]) -> str:
    """The names of a module, each with its docstring."""
    options = "    options: {show_root_heading: true, show_root_toc_entry: true}"
    return f"# {module}\n" + "".join(f"\n::: {module}.{name}\n{options}\n" for name in names)


def notebook_names() -> list[str]:
    """The notebooks, those of `FIRST` before all others."""
    names = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
    return [n for n in FIRST if n in names] + [n for n in names if n not in FIRST]


def notebook_files(name: str) -> Iterator[tuple[str, str | bytes]]:
    """A notebook as a page, and the pictures in it."""
    cells = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())["cells"]
    parts, pictures = [], 0
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            if len(parts) == 1:
                parts.append(f'<a href="{name}.ipynb" download>Download the notebook</a>')
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                pictures += 1
                uri = f"{name}-{pictures}.png"
                yield f"notebooks/{uri}", base64.b64decode("".join(data["image/png"]))
                parts.append(f"![Output of the cell above]({uri})")
            elif text := "".join(output.get("text", data.get("text/plain", ""))):
                parts.append(f"```text\n{text.rstrip()}\n```")
    yield f"notebooks/{name}.md", "\n\n".join(parts) + "\n"


def outside_targets(here: str, text: str) -> set[str]:
    """Files outside of docs/ that a page links to, as paths of the repository."""
    found = {repository_path(here, match[1]) for match in LINK.finditer(text)}
    return {path for path in found if path and not path.startswith("docs/")}


def repository_path(here: str, link: str) -> str | None:
    """What a link of the page `here` means, or None where it is no file of the repository."""
    if re.match(r"[a-z]+:", link):
        return None
    path = os.path.normpath(os.path.join(os.path.dirname(here), link))
    if path.startswith(("..", "docs/" + OUTSIDE)):
        return None
    if (ROOT / path / "README.md").exists():
        path = os.path.join(path, "README.md")
    return path if (ROOT / path).exists() else None


def site_uri(path: str) -> str:
    """Where a file of the repository stands on the site."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/").replace(".ipynb", ".md")
    is_page = path.endswith((".md", ".png"))
    return f"{OUTSIDE}/{path}" + ("" if is_page else ".md")


def read_outside(path: str) -> str | bytes:
    """A file as a page: text as it is, code in a block, a picture as bytes."""
    file = ROOT / path
    if file.is_dir():
        names = sorted(f"{each.name}/" if each.is_dir() else each.name for each in file.iterdir())
        return f"# {path}\n\n" + "".join(f"- {n}\n" for n in names if not n.startswith("__pyc"))
    if file.suffix == ".png":
        return file.read_bytes()
    text = file.read_text()
    if file.suffix == ".md":
        return text
    return f"# {path}\n\n````{LANGUAGES.get(file.suffix, 'text')}\n{text.rstrip()}\n````\n"


def with_site_links(here: str, text: str) -> str:
    """The page with its links to files of the repository as links within the site."""
    folder = os.path.dirname(site_uri(here))

    def replaced(match: re.Match) -> str:
        path = repository_path(here, match[1])
        if path is None:
            return match[0]
        return f"]({os.path.relpath(site_uri(path), folder or '.')}{match[2]})"

    return LINK.sub(replaced, text)

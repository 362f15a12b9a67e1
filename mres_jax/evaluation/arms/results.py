"""Arms that are done, read back from disk."""

import dataclasses
import os
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

from mres_jax.data.rows.types import shown
from mres_jax.data.views import FILTERS
from mres_jax.errors import MresError
from mres_jax.evaluation.arms.folders import SUMMARY, read_complete, read_json
from mres_jax.evaluation.arms.samples import Sample

RUN = "evaluation.json"  # of an evaluation: its run file, resolved


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmResult:
    """One arm with all its answers.

    Attributes:
      run: name of its evaluation.
      folder: of the arm.
      summary: contents of its `summary.json`.
      samples: its answers.
    """

    run: str
    folder: pathlib.Path
    summary: Mapping[str, Any]
    samples: list[Sample]

    @property
    def identity(self) -> Mapping[str, Any]:
        """What its answers depend on."""
        return self.summary["identity"]

    @property
    def model(self) -> str:
        """Name in results."""
        return self.identity["model"]["name"]

    @property
    def task(self) -> str:
        """Name in results."""
        return self.identity["task"]["name"]

    @property
    def policy(self) -> str:
        """Its canonical spelling."""
        return self.identity["policy"]

    @property
    def seed(self) -> int:
        """Of questions and tokens."""
        return self.identity["seed"]


def read_arm(run: str, folder: pathlib.Path) -> ArmResult:
    """Reads an arm.

    Raises:
      MresError: it is not complete, or damaged.
    """
    summary, samples = read_complete(folder)
    if not samples:
        raise MresError(f"eval {folder}: has no answers. Evaluate anew.")
    for name, is_fine in _FIELDS.items():
        _check(folder / SUMMARY, summary, name, is_fine)
    return ArmResult(run=run, folder=folder, summary=summary, samples=samples)


def _check(path: pathlib.Path, content: Any, name: str, is_fine: Callable[[Any], bool]) -> Any:
    """Returns a field by its dotted name; raises `MresError` for what no evaluation writes."""
    for part in name.split("."):
        content = content.get(part) if isinstance(content, Mapping) else None
    if not is_fine(content):
        raise MresError(f"eval {path}: {name} is {shown(repr(content))}. Evaluate anew.")
    return content


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_text_or_none(value: Any) -> bool:
    return value is None or _is_text(value)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= sys.float_info.max


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_colour(value: Any) -> bool:
    parts = value if isinstance(value, list) else []
    return len(parts) == 3 and all(type(part) is int and 0 <= part <= 255 for part in parts)


_FIELDS: Mapping[str, Callable[[Any], bool]] = {  # of a summary, as far as reports need them
    "identity.model.name": _is_text,
    "identity.model.fingerprint": _is_text_or_none,
    "identity.model.address": _is_text_or_none,
    "identity.model.processor.template_sha256": _is_text_or_none,
    "identity.model.processor.background": _is_colour,
    "identity.model.processor.pad_first": lambda value: isinstance(value, bool),
    "identity.model.processor.resample": lambda value: value in (None, *FILTERS),
    "identity.task.name": _is_text,
    "identity.policy": _is_text,
    "identity.seed": lambda value: type(value) is int,
    "identity.versions": _is_mapping,
    "identity.sampling.temperature": _is_number,
    "identity.sampling.max_new_tokens": _is_number,
    "identity.suffix": _is_text,
    "identity.batch": _is_number,
    "made.task": _is_mapping,
    "made.task.type": _is_text_or_none,
    "made.task.name": _is_text_or_none,
    "ms": lambda value: value is None or _is_number(value),
}


def read_run(path: str | os.PathLike[str]) -> list[ArmResult]:
    """Returns the arms of an evaluation's directory, in their order, or the arm of a folder.

    Raises:
      MresError: none there; arms that are not complete, counted; damaged ones.
    """
    root = pathlib.Path(path)
    if not root.is_dir():
        raise MresError(f"run {path}: no such directory.")
    if not (root / RUN).is_file():
        if not (root / SUMMARY).is_file():
            raise MresError(f"run {path}: has no {RUN}, so it is no evaluation of mres eval.")
        return [read_arm(root.absolute().name, root)]
    content = read_json(root / RUN)
    folders = _check(root / RUN, content, "arms", _is_list_of_texts)
    name = _check(root / RUN, content, "run.name", _is_text)
    missing = [folder for folder in folders if not (root / folder / SUMMARY).is_file()]
    if missing or not folders:
        first = f" (first: {missing[0]})" if missing else ""
        raise MresError(
            f"run {path}: {len(missing):,} of {len(folders):,} arms are not done{first}. Go "
            "on with mres eval."
        )
    return [read_arm(name, root / folder) for folder in folders]


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))

"""Arms that are done, read back from disk."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

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
    result = ArmResult(run=run, folder=folder, summary=summary, samples=samples)
    try:
        _ = result.model, result.task, result.policy, result.seed, summary["made"]["task"]
    except (KeyError, TypeError) as error:
        raise MresError(f"eval {folder}: {SUMMARY} has no {error}. Evaluate anew.") from None
    return result


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
    folders = [root / folder for folder in content.get("arms", [])]
    missing = [folder for folder in folders if not (folder / SUMMARY).is_file()]
    if missing or not folders:
        first = f" (first: {missing[0].relative_to(root)})" if missing else ""
        raise MresError(
            f"run {path}: {len(missing):,} of {len(folders):,} arms are not done{first}. Go "
            "on with mres eval."
        )
    name = content.get("run", {}).get("name", root.name)
    return [read_arm(str(name), folder) for folder in folders]

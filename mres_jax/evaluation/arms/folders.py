"""An arm on disk: what it is, a line per answer, and a summary when all are there.

`arm.json` is written before the first answer, `samples.jsonl` grows by whole batches,
`summary.json` is written last: a folder that has it is complete.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from mres_jax.config import diff
from mres_jax.data.rows.types import Fault, shown
from mres_jax.errors import MresError, RunError
from mres_jax.evaluation.arms.samples import Sample, from_line
from mres_jax.files import disk_reason, write_together

ARM, SAMPLES, SUMMARY = "arm.json", "samples.jsonl", "summary.json"
FORMAT = 1


class ArmFolder:
    """The folder of one arm: one model under one policy, asked one task with one seed.

    Attributes:
      folder: its place.
      identity: what its answers depend on; plain values.
      made: what else is worth knowing, such as paths; it may change between runs.
      num_questions: of its task.
      batch: questions a write.
      questions: text of each question by its id, in order; empty where they are drawn.
      num_done: questions answered, in whole batches.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        identity: Mapping[str, Any],
        made: Mapping[str, Any],
        *,
        num_questions: int,
        batch: int,
        questions: Mapping[str, str] = MappingProxyType({}),
    ):
        self.folder, self.identity, self.made = folder, dict(identity), dict(made)
        self.num_questions, self.batch = num_questions, batch
        self.questions = questions
        self.ids: list[str] = []

    @property
    def num_done(self) -> int:
        """Questions answered."""
        return len(self.ids)

    @property
    def is_complete(self) -> bool:
        """Whether its summary is written."""
        return (self.folder / SUMMARY).is_file()

    def begin(self) -> None:
        """Makes the folder, or goes on where an earlier run was stopped.

        Raises:
          MresError: it is of another configuration, which is named; its lines are damaged.
        """
        if (self.folder / ARM).is_file():
            self._check_identity(read_json(self.folder / ARM).get("identity", {}))
            self._check_lines()
            return
        if self.folder.exists() and any(self.folder.iterdir()):
            raise MresError(f"eval {self.folder}: has files, but no {ARM}. Name a new directory.")
        content = {"format": FORMAT, "identity": self.identity, "made": self.made}
        write_together(self.folder, {ARM: to_bytes(content), SAMPLES: b""})

    def _check_identity(self, before: Mapping[str, Any]) -> None:
        plain = json.loads(json.dumps(self.identity))
        if changes := diff(before, plain):
            asked = before.get("task", {}).get("questions_sha256")
            is_other = self.questions and asked != plain["task"]["questions_sha256"]
            raise MresError(
                f"eval {self.folder}: was begun with another configuration: "
                f"{', '.join(changes)}{self._other_questions(before) if is_other else ''}. "
                f"Name another out, {'put the questions back, ' if is_other else ''}"
                "or delete the directory."
            )

    def _other_questions(self, before: Mapping[str, Any]) -> str:
        """What became of the questions that were answered, as far as their lines tell."""
        samples, _ = read_samples(self.folder / SAMPLES)
        answered = {sample.id: sample.question for sample in samples}
        is_whole = len(samples) == before["task"].get("num_questions")
        new = [name for name in self.questions if name not in answered] if is_whole else []
        gone = [name for name in answered if name not in self.questions]
        both = answered.keys() & self.questions.keys()
        other = [
            name for name in answered if name in both and answered[name] != self.questions[name]
        ]
        kinds = (("taken out", gone), ("added", new), ("worded otherwise", other))
        told = [f"{len(names):,} {kind} ({_first(names)})" for kind, names in kinds if names]
        if not told:
            told = ["of those answered here all are there as they were worded; answers, options, "]
            told[0] += "pictures, the order or questions not answered yet are others"
        return f" (questions: {', '.join(told)})"

    def _check_lines(self) -> None:
        """Keeps whole batches; what a stopped run wrote of a batch goes."""
        path = self.folder / SAMPLES
        samples, ends = read_samples(path)
        count = len(samples)
        if count < self.num_questions:
            count -= count % self.batch
        if count > self.num_questions:
            raise MresError(f"eval {path}: {count:,} lines for {self.num_questions:,} questions.")
        self.ids = [sample.id for sample in samples[:count]]
        os.truncate(path, ends[count - 1] if count else 0)

    def check_batch(self, number: int, ids: Sequence[str]) -> None:
        """Raises `MresError` where lines of a batch that is done are not of its questions."""
        there = self.ids[number * self.batch :][: len(ids)]
        for line, (mine, theirs) in enumerate(zip(there, ids, strict=False)):
            if mine != theirs:
                raise MresError(
                    f"eval {self.folder / SAMPLES}: line {number * self.batch + line + 1} is about "
                    f"{mine!r}, but the task asks {theirs!r} there. Name another out."
                )

    def append(self, lines: Sequence[bytes], ids: Sequence[str]) -> None:
        """Writes the lines of one batch.

        Raises:
          RunError: the disk is full or refuses; what is there can be gone on from.
        """
        try:
            with (self.folder / SAMPLES).open("ab") as file:
                file.write(b"".join(lines))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunError(
                f"eval {self.folder}: {disk_reason(error)}; {self.num_done:,} answers are kept."
            ) from error
        self.ids += ids

    def complete(self, summary: Mapping[str, Any]) -> None:
        """Writes the summary, with what it is a summary of."""
        digest = hashlib.sha256((self.folder / SAMPLES).read_bytes()).hexdigest()
        content = {"format": FORMAT, **summary, "samples_sha256": digest}
        content |= {"identity": self.identity, "made": self.made}
        write_together(self.folder, {SUMMARY: to_bytes(content)})


def _first(names: Sequence[str]) -> str:
    return ", ".join([*map(shown, names[:3]), *(["..."] if len(names) > 3 else [])])


def read_complete(folder: pathlib.Path) -> tuple[dict[str, Any], list[Sample]]:
    """Returns the summary of a complete arm and its samples.

    Raises:
      MresError: it is not complete, or its lines are damaged or not those of the summary.
    """
    summary = read_json(folder / SUMMARY)
    samples, _ = read_samples(folder / SAMPLES)
    digest = hashlib.sha256((folder / SAMPLES).read_bytes()).hexdigest()
    if summary.get("samples_sha256") != digest or summary.get("num_questions") != len(samples):
        raise MresError(
            f"eval {folder}: {SAMPLES} is not what {SUMMARY} was written for. Evaluate anew."
        )
    return summary, samples


def read_samples(path: pathlib.Path) -> tuple[list[Sample], list[int]]:
    """Returns the lines of a file, and where each ends; a last line without its end is left out.

    Raises:
      MresError: lines that are damaged or there twice, counted.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MresError(f"eval {path}: {disk_reason(error)}.") from None
    samples, ends, bad, at = [], [], [], 0
    seen: set[str] = set()
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        at += len(line) + 1
        try:
            sample = from_line(line)
            if sample.id in seen:
                raise Fault("duplicate id", f"{sample.id!r} is there twice")
        except Fault as fault:
            bad.append(f"line {number}: {fault.reason}")
            continue
        seen.add(sample.id)
        samples.append(sample)
        ends.append(at)
    if bad:
        raise MresError(
            f"eval {path}: {len(bad):,} damaged lines of {len(bad) + len(samples):,} ({bad[0]}). "
            "Name another out, or delete the directory."
        )
    return samples, ends


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Returns the contents of one of our files.

    Raises:
      MresError: it is not there, or damaged.
    """
    try:
        content = json.loads(path.read_bytes())
        json.dumps(content, ensure_ascii=False).encode()  # half a character is a `ValueError`
    except OSError as error:
        raise MresError(f"eval {path}: {disk_reason(error)}.") from None
    except (ValueError, RecursionError) as error:
        raise MresError(f"eval {path}: no JSON ({error}).") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise MresError(f"eval {path}: is not of format {FORMAT}.")
    return content


def to_bytes(content: Mapping[str, Any]) -> bytes:
    """Returns plain values as a JSON file."""
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()

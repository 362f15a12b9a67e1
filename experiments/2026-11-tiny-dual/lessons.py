"""Draws documents and keeps what mres-tiny sees in them, for teach.py to learn from many times.

python experiments/2026-11-tiny-dual/lessons.py [--count 1000] [--part 0/1] [--out DIR]

A lesson is eight pictures in squares of 256 px, half of them dense pages. What is there is kept.
"""

import argparse
import dataclasses
import pathlib
import pickle
from typing import Any, NamedTuple

import jax
import numpy as np
from arms import ARMS, base_run
from flax import nnx

from mres_jax.config import Documents
from mres_jax.data.packing import pack
from mres_jax.data.types import Pack
from mres_jax.files import write_together
from mres_jax.models.registry import load_model, resolve
from mres_jax.resolution.policies import parse_policy
from mres_jax.training.input.documents import DocumentExamples
from mres_jax.training.setup import open_run

POLICY = parse_policy(ARMS["dual"].policy)
MERGED = 4  # patches of mres-tiny in a visual token
PAGES = 4.0  # weight beside 1 of each other kind


class Lesson(NamedTuple):
    """A pack of the dual pathway, and what mres-tiny sees in the same pixels.

    Attributes:
      pack: eight pictures.
      wanted: visual tokens of mres-tiny, one per patch of the pack, `[p e]`.
      labels: what stands on each of the four patches of mres-tiny in a token, by name, `[4 * p]`.
    """

    pack: Pack
    wanted: Any
    labels: dict[str, Any]

    @property
    def loss_mask(self) -> Any:
        """Tokens of the answers."""
        return self.pack.loss_mask


class Drawing:
    """Lessons, each a function of its number alone."""

    def __init__(self):
        run = base_run("dual")
        (data,), (self.rung,) = run.data, run.ladder
        assert isinstance(data, Documents)
        data = dataclasses.replace(data, kinds={**data.kinds, "page": PAGES})
        opened = open_run(dataclasses.replace(run, init=None))
        teacher = load_model(resolve("mres-tiny"))
        seen = dataclasses.replace(teacher.spec, background=opened.spec.background)
        self.dual = DocumentExamples(
            data,
            policies={POLICY: 1.0},
            spec=opened.spec,
            tokenizer=opened.tokenizer,
            seed=run.seed,
        )
        self.merged = DocumentExamples(
            data,
            policies={POLICY: 1.0},
            spec=seen,
            tokenizer=teacher.tokenizer,
            seed=run.seed,
            labelled=True,
        )
        self.room = dataclasses.replace(
            self.rung, max_patches=MERGED * self.rung.max_patches, canvases=()
        )
        graphdef, self.state = nnx.split(teacher.model)
        self.encode = jax.jit(lambda state, p: nnx.merge(graphdef, state).encode(p).tokens)

    def lesson(self, number: int) -> Lesson:
        """Eight conversations of an endless epoch."""
        size = self.rung.max_views
        drawn = [self.dual.conversation(0, size * number + i) for i in range(size)]
        pupils = pack([self.dual.painted(one) for one in drawn], self.rung)
        again = [
            one._replace(views=tuple(POLICY([d.size for d in one.documents], "", self.merged.spec)))
            for one in drawn
        ]
        theirs = pack([self.merged.painted(one) for one in again], self.room)
        wanted = np.asarray(self.encode(self.state, theirs))
        labels = {name: values.astype(np.int16) for name, values in theirs.patch_labels.items()}
        return Lesson(pupils, wanted.astype(np.float16), labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--part", default="0/1", help="i/n: every n-th from the i-th on")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/tiny-dual-lessons"))
    args = parser.parse_args()
    drawing = Drawing()
    i, n = map(int, args.part.split("/"))
    for number in range(i, args.count, n):
        path = path_of(args.out, number)
        if not path.is_file():
            write_together(args.out, {path.name: pickle.dumps(drawing.lesson(number))})
    print(args.out)


def path_of(folder: pathlib.Path, number: int) -> pathlib.Path:
    """Where a lesson is kept."""
    return folder / f"{number:05d}.pickle"


def numbers_in(folder: pathlib.Path) -> list[int]:
    """Which lessons are kept."""
    return sorted(int(path.stem) for path in folder.glob("*.pickle"))


def read(folder: pathlib.Path, number: int) -> Lesson:
    """A lesson that was kept."""
    return pickle.loads(path_of(folder, number).read_bytes())


if __name__ == "__main__":
    main()

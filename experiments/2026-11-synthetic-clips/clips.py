"""Clips in which one or two frames carry the text that is asked for; the rest repeats or distracts.

python experiments/2026-11-synthetic-clips/clips.py OUT [--clips 256] [--frames 8] [--seed 0]
"""

import argparse
import json
import pathlib
import random

import numpy as np
from PIL import Image

from mres_jax.data.documents import Document, Options, Question, item_seed, make_document
from mres_jax.data.documents.grounds import draw_ground, paint_ground
from mres_jax.geometry import Size

SIZE = Size(128, 160)  # of a frame, px: 80 visual tokens of mres-tiny
OPTIONS = Options(cap_heights=(10, 12), max_fields=3, logo=0.0)
DISTRACTING = 0.5  # share of the other frames that carry text nobody asks for


def draw_asked(seed: int) -> tuple[Document, Question]:
    """Returns a document, and a question about a value of it that has a name."""
    for attempt in range(1_000):
        document = make_document(item_seed(seed, attempt), size=SIZE, options=OPTIONS)
        named = [q for q in document.questions if q.type == "rc" and q.tags[0] != "bare"]
        if named:
            return document, named[0]
    raise RuntimeError(f"no document with a named value in 1,000 from seed {seed}")


def keys_of(document: Document) -> set[str]:
    """Names of its values."""
    return {field.key for field in document.fields}


def draw_distractor(rng: random.Random, taken: set[str]) -> np.ndarray:
    """Returns a frame with text under other names."""
    while True:
        document = make_document(rng.getrandbits(48), size=SIZE, options=OPTIONS)
        if not keys_of(document) & taken:
            return document.image


def draw_clip(seed: int, num_frames: int) -> tuple[list[np.ndarray], Question, list[int]]:
    """Returns frames, a question, and the numbers of the frames that answer it."""
    rng = random.Random(seed)
    document, question = draw_asked(rng.getrandbits(48))
    start, count = rng.randrange(num_frames), rng.choice((1, 2))
    telling = list(range(start, min(start + count, num_frames)))
    still = paint_ground(draw_ground(rng, "photo", "white"), SIZE)
    frames = []
    for i in range(num_frames):
        if i in telling:
            frames.append(document.image)
        elif rng.random() < DISTRACTING:
            frames.append(draw_distractor(rng, keys_of(document)))
        else:
            frames.append(still)
    return frames, question, telling


def write_clips(folder: pathlib.Path, *, clips: int, num_frames: int, seed: int) -> pathlib.Path:
    """Writes the frames as PNG and the questions as `rows.jsonl`, whose path it returns."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i in range(clips):
        frames, question, telling = draw_clip(item_seed(seed, i), num_frames)
        names = [f"{i:05d}_{k:02d}.png" for k in range(num_frames)]
        for name, frame in zip(names, frames, strict=True):
            Image.fromarray(frame).save(folder / name)
        row = {"id": f"{seed}-{i:05d}", "frames": names, "question": question.text}
        row |= {"answer": question.answer, "type": "text", "telling": telling}
        lines.append(json.dumps(row) + "\n")
    path = folder / "rows.jsonl"
    path.write_text("".join(lines))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--clips", type=int, default=256)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(write_clips(args.out, clips=args.clips, num_frames=args.frames, seed=args.seed))


if __name__ == "__main__":
    main()

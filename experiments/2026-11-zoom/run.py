"""Zoom against its controls on generated documents: accuracy, visual tokens, window recall.

python experiments/2026-11-zoom/run.py --questions 200 [--model DIR]
"""

import argparse
import csv
import pathlib
from collections.abc import Iterator

import mres_jax
from mres_jax.data.documents import Document, Question, item_seed, make_document
from mres_jax.data.rows import QuestionRow
from mres_jax.evaluation.benchmarks import window_recall
from mres_jax.protocols import Answer, Request, Sampling
from mres_jax.resolution.zoom import Window, window_around, window_size
from mres_jax.scoring import exact_match, wilson_interval

WINDOW, COARSE = 0.5, 96  # share of each side; visual tokens of the whole picture
ZOOM = f"zoom,window={WINDOW},coarse={COARSE},prompts=mres_tiny"
POLICIES = {
    "native": "native",
    "downsampled": f"budget:{COARSE}",
    "one-pass oracle window": "",
    "random window": f"{ZOOM},source=random",
    "ECP": ZOOM,
    "ECP, two windows": f"{ZOOM},candidates=2",
}


def questions(seed: int, count: int) -> Iterator[tuple[Document, Question]]:
    """One question to be read per document, about a value that has a name."""
    found = 0
    for i in range(100 * count):
        document = make_document(item_seed(seed, i), area_bin="D", ratio_bin="NM")
        named = [q for q in document.questions if q.type == "rc" and q.tags[0] != "bare"]
        if named and found < count:
            found += 1
            yield document, named[0]
        if found == count:
            return


def oracle(document: Document, question: Question) -> str:
    """The window around the answer."""
    assert question.box is not None
    top, left, bottom, right = question.box
    extent = window_size(document.size, WINDOW)
    box = window_around((top + bottom) / 2, (left + right) / 2, extent, document.size)
    return str(Window.of([box]))


def row_of(name: str, asked: list[tuple[Document, Question]], answers: list[Answer]) -> dict:
    """What one policy came to."""
    right = [exact_match(a.text, [q.answer]) for a, (_, q) in zip(answers, asked, strict=True)]
    rows = [QuestionRow(id=q.id, pictures=(), question=q.text, box=q.box) for _, q in asked]
    share = wilson_interval(sum(right), len(right))
    count = len(answers)
    return {
        "policy": name,
        "questions": count,
        "accuracy": f"{share.mean:.3f} [{share.low:.3f}, {share.high:.3f}]",
        "visual tokens": round(sum(a.cost.visual_tokens for a in answers) / count, 1),
        "GFLOPs": round(sum(a.cost.flops for a in answers) / count / 1e9, 2),
        "window holds the answer": f"{window_recall(rows, answers).mean:.3f}",
        "no window found": round(sum(a.note.startswith("no window") for a in answers) / count, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--model")
    args = parser.parse_args()
    model = mres_jax.load(args.model)
    asked = list(questions(args.seed, args.questions))
    lines = []
    for name, policy in POLICIES.items():
        requests = [
            Request(id=q.id, images=[d.image], question=q.text, policy=policy or oracle(d, q))
            for d, q in asked
        ]
        answers = model.answer_batch(requests, sampling=Sampling(max_new_tokens=24))
        lines.append(row_of(name, asked, [some[0] for some in answers]))
        print(lines[-1], flush=True)
    with pathlib.Path(__file__).with_name("results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


if __name__ == "__main__":
    main()

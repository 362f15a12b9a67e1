"""Zoom against its controls on documents, screens and scenes: accuracy, tokens, window recall.

python experiments/2026-11-zoom/run.py --questions 200 [--model DIR] [--sets desktop-4k ...]

Screens and scenes have an eighth of the sides of 4K and 8K, and so has the window: 128 px for
places on screens, a quarter of each side for scenes. A value is asked for whose name is large and
whose text is small: a glance shows where it stands, a close look what it is.
"""

import argparse
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import mres_jax
from mres_jax.data.documents import (
    Document,
    Question,
    item_seed,
    make_board_picture,
    make_document,
)
from mres_jax.data.rows import QuestionRow
from mres_jax.evaluation.benchmarks import window_recall
from mres_jax.evaluation.csv_text import records_to_csv
from mres_jax.geometry import Size
from mres_jax.protocols import Answer, Request, Sampling
from mres_jax.resolution.zoom import Window, find_places, window_around, window_size
from mres_jax.scoring import exact_match, point_in_box, wilson_interval


class Setting(NamedTuple):
    """A set of pictures, and how a zoom looks at it.

    Attributes:
      kind: of the pictures; "" for documents of bin D.
      size: of them.
      window: up to 1 a share of each side, above 1 px.
      coarse: most visual tokens of the whole picture.
      fine: visual tokens of a window.
    """

    kind: str
    size: Size | None
    window: float
    coarse: int
    fine: int


# Both passes together take a quarter of native's tokens at most, documents apart.
FOUR_K, EIGHT_K = Size(270, 480), Size(540, 960)
SETTINGS = {
    "documents": Setting("", None, 0.5, 96, 100),
    "desktop-4k": Setting("desktop", FOUR_K, 128, 62, 64),
    "desktop-8k": Setting("desktop", EIGHT_K, 128, 440, 64),
    "scene-4k": Setting("scene", FOUR_K, 0.25, 94, 32),
    "scene-8k": Setting("scene", EIGHT_K, 0.25, 380, 128),
}
ORACLE = "one-pass oracle window"


def policies(setting: Setting) -> dict[str, str]:
    """Contestants by name; the window of the oracle differs by question."""
    zoom = f"zoom,window={setting.window},coarse={setting.coarse}"
    ecp = f"{zoom},source=gradient"
    return {
        "native": "native",
        "downsampled": f"budget:{setting.coarse}",
        "downsampled, as many tokens as ECP": f"budget:{setting.coarse + setting.fine}",
        ORACLE: "",
        "random window": f"{zoom},source=random",
        "ECP, the model says where": f"{zoom},prompts=mres_tiny",
        "ECP": ecp,
        "ECP, picture and window": f"{ecp},context=both",
        "ECP, two windows": f"{ecp},candidates=2",
        "ECP, two windows, surer answer": f"{ecp},candidates=2,join=best",
    }


def questions(setting: Setting, seed: int, count: int) -> Iterator[tuple[Document, Question]]:
    """One question to be read per picture, about a value that has a name."""
    found = 0
    for i in range(100 * count):
        name = item_seed(seed, i)
        if setting.size is None:
            document = make_document(name, area_bin="D", ratio_bin="NM")
        else:
            document = make_board_picture(name, kind=setting.kind, size=setting.size)
        named = [q for q in document.questions if q.type == "rc" and q.tags[0] != "bare"]
        if named and found < count:
            found += 1
            yield document, named[i % len(named) if setting.kind else 0]
        if found == count:
            return


def oracle(document: Document, question: Question, window: float) -> str:
    """The window around the answer."""
    assert question.box is not None
    top, left, bottom, right = question.box
    extent = window_size(document.size, window)
    box = window_around((top + bottom) / 2, (left + right) / 2, extent, document.size)
    return str(Window.of([box]))


def points_right(answer: Answer, question: Question) -> float:
    """Whether the first pass names a place inside the value."""
    if len(answer.passes) < 2 or question.box is None:
        return 0.0
    first = answer.passes[0]
    (view,) = first.views
    frame, picture = first.coord_frame, view.crop.size  # the first pass sees all of it
    places = find_places(first.text, view=view, coord_frame=frame, picture=picture).places
    return point_in_box(*places[0].centre, question.box) if places else 0.0


def row_of(
    names: tuple[str, str], asked: list[tuple[Document, Question]], answers: list[Answer]
) -> dict:
    """What one policy came to."""
    right = [exact_match(a.text, [q.answer]) for a, (_, q) in zip(answers, asked, strict=True)]
    rows = [QuestionRow(id=q.id, pictures=(), question=q.text, box=q.box) for _, q in asked]
    share, count = wilson_interval(sum(right), len(right)), len(answers)
    pointed = sum(points_right(a, q) for a, (_, q) in zip(answers, asked, strict=True))
    is_zoom = names[1].startswith("ECP")
    return {
        "set": names[0],
        "policy": names[1],
        "questions": count,
        "accuracy": f"{share.mean:.3f}",
        "low": f"{share.low:.3f}",
        "high": f"{share.high:.3f}",
        "visual tokens": round(sum(a.cost.visual_tokens for a in answers) / count, 1),
        "GFLOPs": round(sum(a.cost.flops for a in answers) / count / 1e9, 2),
        "window holds the answer": f"{window_recall(rows, answers).mean:.3f}",
        "first pass inside the value": f"{pointed / count:.3f}" if is_zoom else "",
        "no window found": round(sum(a.note.startswith("no window") for a in answers) / count, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--questions", type=int, default=200, help="of each set")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--model")
    parser.add_argument("--sets", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    names = list(policies(SETTINGS["documents"]))
    parser.add_argument("--policies", nargs="+", choices=names, default=names)
    parser.add_argument("--csv", type=pathlib.Path)
    args = parser.parse_args()
    model = mres_jax.load(args.model)
    target = args.csv or pathlib.Path(__file__).with_name("results.csv")
    target.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for name in args.sets:
        setting = SETTINGS[name]
        asked = list(questions(setting, args.seed, args.questions))
        for policy_name in args.policies:
            policy = policies(setting)[policy_name]
            requests = [
                Request(
                    id=q.id,
                    images=[d.image],
                    question=q.text,
                    policy=policy or oracle(d, q, setting.window),
                )
                for d, q in asked
            ]
            answers = model.answer_batch(requests, sampling=Sampling(max_new_tokens=24))
            lines.append(row_of((name, policy_name), asked, [some[0] for some in answers]))
            print(lines[-1], flush=True)
    target.write_bytes(records_to_csv(lines))


if __name__ == "__main__":
    main()

"""HR-Bench and ScreenSpot-Pro as released, but about generated documents."""

import base64
import csv
import json
import pathlib
from typing import NamedTuple

from mres_jax.data.documents.bins import BINS
from mres_jax.evaluation.trials import draw_questions
from mres_jax.inference.show import png

LETTERS = "ABCD"
LARGE = [cell for cell in BINS if cell[0] in "CDEF"]
COLUMNS = ("index", "question", "answer", "category", *LETTERS, "cycle_category", "image")


class Copies(NamedTuple):
    """Local copies, as users have them."""

    hr_bench: pathlib.Path  # the table
    screens: pathlib.Path  # annotations and images


def make_copies(out: pathlib.Path, *, questions: int, elements: int, seed: int) -> Copies:
    """Writes both: `questions` x 4 cycles of multiple choice, and `elements` to point at."""
    copies = Copies(out / "hr_bench_4k.tsv", out / "ScreenSpot-Pro")
    _hr_bench(copies.hr_bench, questions, seed)
    _screens(copies.screens, elements, seed)
    return copies


def _hr_bench(file: pathlib.Path, count: int, seed: int) -> None:
    drawn = list(draw_questions(seed, 2 * count + 8, types=("rc", "sc"), bins=LARGE))
    texts = list(dict.fromkeys(question.answer for _, question in drawn))
    with file.open("w", newline="", encoding="utf-8") as lines:
        table = csv.DictWriter(lines, COLUMNS, delimiter="\t")
        table.writeheader()
        for number, (document, question) in enumerate(drawn[:count]):
            right = texts.index(question.answer)
            options = [texts[(right + i) % len(texts)] for i in range(4)]
            image = base64.b64encode(png(document.image)).decode()
            for cycle in range(4):
                turned = options[cycle:] + options[:cycle]
                row = {
                    "index": 4 * number + cycle,
                    "question": question.text,
                    "answer": LETTERS[turned.index(question.answer)],
                    "category": {"rc": "single", "sc": "cross"}[question.type],
                    "cycle_category": f"cycle{cycle}",
                    "image": image,
                }
                table.writerow(row | dict(zip(LETTERS, turned, strict=True)))


def _screens(folder: pathlib.Path, count: int, seed: int) -> None:
    for name in ("annotations", "images/pages_web"):
        (folder / name).mkdir(parents=True)
    rows = []
    for number, (document, question) in enumerate(
        draw_questions(seed, count, types=("point",), per_document=1, bins=LARGE)
    ):
        assert question.box is not None
        name = f"pages_web/{number}.png"
        (folder / "images" / name).write_bytes(png(document.image))
        top, left, bottom, right = question.box
        height, width = document.image.shape[:2]
        rows.append(
            {
                "id": f"pages_web_{number}",
                "img_filename": name,
                "bbox": [left, top, right, bottom],
                "instruction": question.text,
                "instruction_cn": question.text,
                "application": "pages",
                "platform": "web",
                "img_size": [width, height],
                "ui_type": ("text", "icon")[number % 2],
                "group": "Office",
            }
        )
    (folder / "annotations/pages_web.json").write_text(json.dumps(rows))

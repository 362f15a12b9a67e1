"""The demo: fresh questions under several policies, eight documents, what they show, pictures."""

import datetime
import json
import os
import pathlib
import textwrap
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from mres_jax.data.documents import BINS, Document, Question, item_seed
from mres_jax.errors import MresError
from mres_jax.evaluation.asked_pages import Voice, ask_pages, draw_page
from mres_jax.evaluation.explorer import make_explorer
from mres_jax.evaluation.findings import closing_sentence, compare_line
from mres_jax.evaluation.maps import draw_curve, draw_maps, maps_csv, table_csv
from mres_jax.evaluation.pages import Page, write_pages
from mres_jax.evaluation.plan import Plan, make_plan
from mres_jax.evaluation.records import find_record, fingerprint
from mres_jax.evaluation.second_look import QUESTIONS as LOOKS, SecondLook, look_twice
from mres_jax.evaluation.summary import Summary, summarize, tallies_to_json, to_json
from mres_jax.evaluation.trials import Tally, Trial, draw_questions, in_batches, time_trials
from mres_jax.files import write_together
from mres_jax.inference.answer import LocalAnswerer

ROUND = 2 * len(BINS)  # questions: one of each type about a document of each cell
QUESTIONS = 2 * ROUND  # unless the machine is too slow for the second round
BATCH = ROUND // 2  # so that a round has a batch that compiles and one that is timed
SECONDS = 150  # that rounds may take together, where nobody said how many questions
MIXED = tuple(BINS[12 * i % len(BINS)] for i in range(len(BINS)))  # so that a few are of all sizes
LINE = 100  # characters
SHOWN = 4  # the page of the picture: a wide invoice
TABLE = 2_000  # distance of the seeds of the table from the user's


class Result(NamedTuple):
    """Everything that the demo found."""

    pages: list[Page]
    trials: list[Trial]  # of the pages, policies inside
    summary: Summary  # of the live questions
    files: dict[str, pathlib.Path]  # by name


def run_demo(
    answerer: LocalAnswerer,
    *,
    out: str | pathlib.Path,
    seed: int = 0,
    num_questions: int | None = None,
    model_name: str = "mres-tiny",
    voice: Voice | None = None,
) -> Result:
    """Runs the demo: the table, the eight documents, the closing sentence, the files.

    Args:
      answerer: of a model that reads documents.
      out: directory for pages, pictures, `index.html`, CSV files and `results.json`.
      seed: of all documents and questions.
      num_questions: of the table, about fresh documents, half `rc` and half `sc`; None asks
        `QUESTIONS`, or one round of the cells where the second would take too long.
      model_name: as it is called in what is written.
      voice: where to speak; None prints lines.

    Raises:
      MresError: fewer than one question, or a policy that the model cannot take.
      RunError: results cannot be written.
    """
    if num_questions is not None and num_questions < 1:
        raise MresError(f"demo: {num_questions} questions; ask at least 1.")
    voice, out, table_seed = voice or Voice(), pathlib.Path(out), item_seed(seed, TABLE)
    sizes = [document.size for document, _ in _draw(table_seed, num_questions or QUESTIONS)]
    plan = make_plan(answerer.spec, sizes)
    record = find_record(answerer.model)
    pages = write_pages(out, seed)
    made = _made(answerer, model_name, seed, num_questions)
    summary = _ask_live(answerer, table_seed, num_questions, plan, made, voice)
    headers, rows = tally_rows([summary.of(policy) for policy in plan.table])
    voice.show(headers, rows, table_title(summary))
    voice.say(f"\n{len(pages)} documents in {out}/, asked one by one")
    trials = ask_pages(answerer, pages, plan, voice)
    voice.progress("looking twice at pages of about 400 x 400 px")
    looks = min(LOOKS, num_questions or LOOKS)
    twice = look_twice(answerer, seed=seed, num_questions=looks, model_name=model_name)
    voice.show(*tally_rows(twice.tallies), f"two looks: {looks} reading questions, one a page")
    voice.say(f"\n{textwrap.fill(twice.line, LINE)}")
    voice.say(f"\n{textwrap.fill(closing_sentence(summary), LINE)}")
    shown = record if record and record.num_questions > summary.num_questions else summary
    if shown is record:
        voice.say(f"\n{textwrap.fill(compare_line(shown), LINE)}")
    files = _draw_files(summary, shown, pages, trials, twice, stride=answerer.spec.stride)
    paths = write_together(out, files)
    return Result(pages, trials, summary, dict(zip(files, paths, strict=True)))


def _draw_files(
    summary: Summary,
    shown: Summary,
    pages: Sequence[Page],
    trials: Sequence[Trial],
    twice: SecondLook,
    *,
    stride: int,
) -> dict[str, bytes]:
    """Everything but the pages, by file name; figures are of `shown`, a record or the same."""
    is_live, plan, model = shown is summary, summary.plan, summary.made["model"]
    figures = {
        "maps.png": draw_maps(shown, note=source_of(shown, live=is_live)),
        "budgets.png": draw_curve(shown, note=source_of(shown, live=is_live)),
        "zoom.png": twice.picture,
    }
    headers, rows = tally_rows([summary.of(policy) for policy in plan.table])
    html = make_explorer(
        pages,
        trials,
        plan,
        stride=stride,
        headers=headers,
        rows=rows,
        caption=table_title(summary),
        sentence=closing_sentence(summary),
        figures={_TITLES[name]: png for name, png in figures.items()},
        note=source_of(summary, live=True),
    )
    return {
        "index.html": html.encode(),
        "policies.png": draw_page(pages[SHOWN], trials, plan, stride=stride, model_name=model),
        **figures,
        "table.csv": table_csv(summary).encode(),
        "maps.csv": maps_csv(shown).encode(),
        "budgets.csv": table_csv(shown, timed=is_live).encode(),
        "results.json": _results(summary, pages, trials, twice).encode(),
    }


def _made(
    answerer: LocalAnswerer, model_name: str, seed: int, num_questions: int | None
) -> dict[str, str]:
    questions = "" if num_questions is None else f" --questions {num_questions}"
    return {
        "model": model_name,
        "fingerprint": fingerprint(answerer.model),
        "seed": str(seed),
        "date": datetime.date.today().isoformat(),
        "device": f"{jax.devices()[0].device_kind.upper()}, {os.cpu_count()} cores",
        "command": f"mres demo{questions} --seed {seed}",
    }


_TITLES = {
    "maps.png": "Reading by size of the picture: native, one size for all, their difference",
    "budgets.png": "Exact match against mean visual tokens",
    "zoom.png": "A second look: the window that the first one chose",
}


def source_of(summary: Summary, *, live: bool) -> str:
    """Returns where numbers come from, for captions."""
    made = summary.made
    how = "asked live" if live else f"RECORDED by `{made['command']}`"
    return (
        f"{made['model']}, {summary.num_questions} questions {how}, {made['date']}, "
        f"{made['device']}"
    )


def table_title(summary: Summary) -> str:
    """Returns what stands over the table."""
    return (
        f"exact match over {summary.num_of('rc')} reading and {summary.num_of('sc')} seeing "
        "questions, fresh and live, with 95 % intervals; ms per question in full packs"
    )


def _draw(seed: int, num_questions: int) -> Iterator[tuple[Document, Question]]:
    return draw_questions(seed, num_questions, bins=MIXED)


def _evenly(some: Sequence[tuple[Document, Question]]) -> list[tuple[Document, Question]]:
    """A round so that its two batches have pictures of about the same sizes: every other one."""
    documents = [some[i : i + 2] for i in range(0, len(some), 2)]  # two questions about each
    return [pair for one in (*documents[::2], *documents[1::2]) for pair in one]


def _ask_live(
    answerer: LocalAnswerer,
    seed: int,
    num_questions: int | None,
    plan: Plan,
    made: dict[str, str],
    voice: Voice,
) -> Summary:
    policies = plan.everything
    start, last = time.monotonic(), [time.monotonic()]
    wanted = num_questions or QUESTIONS
    voice.progress(f"asking {wanted} fresh questions under {len(policies)} policies")

    def report(done: int) -> None:
        if time.monotonic() - last[0] > 4 or done == wanted * len(policies):
            last[0] = time.monotonic()
            voice.progress(f"{done} of {wanted * len(policies)} answers")

    def questions() -> Iterator[tuple[np.ndarray, Question]]:
        asked = 0
        for number, some in enumerate(in_batches(_draw(seed, wanted), ROUND)):
            spent = time.monotonic() - start
            if num_questions is None and number and 2 * spent > SECONDS:
                voice.progress(f"{asked} questions took {spent:.0f} s: no more are asked")
                return
            asked += len(some)
            yield from ((document.image, question) for document, question in _evenly(some))

    trials, ms = time_trials(answerer, questions(), policies, batch=BATCH, report=report)
    return summarize(trials, plan, seed=seed, made=made, ms=ms)


def tally_rows(tallies: Sequence[Tally]) -> tuple[list[str], list[list[str]]]:
    """Returns headers and cells of the table."""
    names = {"rc": "reading (RC)", "sc": "seeing (SC)"}
    kinds = [kind for kind in names if any(kind in row.accuracy for row in tallies)]
    costs = ("visual tokens", "retention ratio", "MFLOPs", "ms")
    headers = ["policy", *(names[kind] for kind in kinds), *costs]
    rows = []
    for row in tallies:
        shares = (row.accuracy[kind] for kind in kinds)
        rows.append(
            [
                row.policy,
                *(f"{mean:.3f} [{low:.3f}, {high:.3f}]" for mean, low, high in shares),
                f"{row.visual_tokens:.0f}",
                f"{row.retention_ratio:.2f}",
                f"{row.flops / 1e6:,.0f}",
                f"{row.ms:.0f}",
            ]
        )
    return headers, rows


def _results(
    summary: Summary, pages: Sequence[Page], trials: Sequence[Trial], twice: SecondLook
) -> str:
    files = {page.question.id: page.path.name for page in pages}
    content = {
        "answers": to_json(summary),
        "closing": closing_sentence(summary),
        "two_looks": {"closing": twice.line, "policies": tallies_to_json(twice.tallies)},
        "pages": [
            {
                "file": files[trial.question.id],
                "question": trial.question.text,
                "expected": trial.question.answer,
                "policy": trial.policy,
                "answer": trial.answer.text,
                "right": trial.is_right,
                "visual_tokens": trial.answer.cost.visual_tokens,
                "retention_ratio": trial.answer.cost.retention_ratio,
                "flops": trial.answer.cost.flops,
                "ms": dict(trial.answer.cost.ms),
            }
            for trial in trials
        ],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"

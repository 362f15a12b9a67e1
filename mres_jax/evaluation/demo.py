"""The demo: fresh questions under several policies, eight documents, what they show, pictures."""

import dataclasses
import datetime
import json
import os
import pathlib
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax

from mres_jax.data.documents import BINS, Document, Question, item_seed
from mres_jax.data.views import render_view
from mres_jax.errors import MresError
from mres_jax.evaluation.explorer import make_explorer, other_policies, slider_policies
from mres_jax.evaluation.figures import Panel, draw_policies
from mres_jax.evaluation.findings import closing_sentence, compare_line
from mres_jax.evaluation.maps import draw_curve, draw_maps, maps_csv, table_csv
from mres_jax.evaluation.pages import Page, cut_detail, write_pages
from mres_jax.evaluation.plan import Plan, make_plan
from mres_jax.evaluation.records import find_record, fingerprint
from mres_jax.evaluation.summary import Summary, summarize, to_json
from mres_jax.evaluation.trials import (
    NO_PICTURE,
    Tally,
    Trial,
    draw_questions,
    make_request,
    note_compiles,
    time_trials,
)
from mres_jax.files import write_together
from mres_jax.inference.answer import LocalAnswerer
from mres_jax.protocols import Sampling

QUESTIONS = 140  # two rounds of the 35 cells: what fits into minutes on two cores
MIXED = tuple(BINS[12 * i % len(BINS)] for i in range(len(BINS)))  # so that a few are of all sizes
SAMPLING = Sampling(max_new_tokens=32)
LINE = 100  # characters
SHOWN = 4  # the page of the picture: a wide invoice
TABLE = 2_000  # distance of the seeds of the table from the user's


class Result(NamedTuple):
    """Everything that the demo found."""

    pages: list[Page]
    trials: list[Trial]  # of the pages, policies inside
    summary: Summary  # of the live questions
    files: dict[str, pathlib.Path]  # by name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Voice:
    """Where the demo speaks.

    Attributes:
      say: takes lines of results.
      show: takes a table: headers, rows, title.
      progress: takes lines about what goes on.
    """

    say: Callable[[str], None] = print
    show: Callable[[Sequence[str], Sequence[Sequence[str]], str], None] = lambda *table: None
    progress: Callable[[str], None] = lambda line: None


def run_demo(
    answerer: LocalAnswerer,
    *,
    out: str | pathlib.Path,
    seed: int = 0,
    num_questions: int = QUESTIONS,
    model_name: str = "mres-tiny",
    voice: Voice | None = None,
) -> Result:
    """Runs the demo: the table, the eight documents, the closing sentence, the files.

    Args:
      answerer: of a model that reads documents.
      out: directory for pages, pictures, `index.html`, CSV files and `results.json`.
      seed: of all documents and questions.
      num_questions: of the table, about fresh documents, half `rc` and half `sc`.
      model_name: as it is called in what is written.
      voice: where to speak; None prints lines.

    Raises:
      MresError: fewer than one question, or a policy that the model cannot take.
      RunError: results cannot be written.
    """
    if num_questions < 1:
        raise MresError(f"demo: {num_questions} questions; ask at least 1.")
    voice, out, table_seed = voice or Voice(), pathlib.Path(out), item_seed(seed, TABLE)
    sizes = [document.size for document, _ in _draw(table_seed, num_questions)]
    plan = make_plan(answerer.spec, sizes)
    record = find_record(answerer.model)
    pages = write_pages(out, seed)
    made = {
        "model": model_name,
        "fingerprint": fingerprint(answerer.model),
        "seed": str(seed),
        "date": datetime.date.today().isoformat(),
        "device": f"{jax.devices()[0].device_kind.upper()}, {os.cpu_count()} cores",
        "command": f"mres demo --questions {num_questions} --seed {seed}",
    }
    summary = _ask_live(answerer, table_seed, num_questions, plan, made, voice)
    headers, rows = tally_rows([summary.of(policy) for policy in plan.table])
    voice.show(headers, rows, table_title(summary))
    voice.say(f"\n{len(pages)} documents in {out}/, asked one by one")
    trials = ask_pages(answerer, pages, plan, voice)
    voice.say(f"\n{textwrap.fill(closing_sentence(summary), LINE)}")
    shown = record if record and record.num_questions > num_questions else summary
    if shown is record:
        voice.say(f"\n{textwrap.fill(compare_line(shown), LINE)}")
    figures = {
        "maps.png": draw_maps(shown, note=source_of(shown, live=shown is summary)),
        "budgets.png": draw_curve(shown, note=source_of(shown, live=shown is summary)),
    }
    html = make_explorer(
        pages,
        trials,
        plan,
        stride=answerer.spec.stride,
        headers=headers,
        rows=rows,
        caption=table_title(summary),
        sentence=closing_sentence(summary),
        figures={_TITLES[name]: png for name, png in figures.items()},
        note=source_of(summary, live=True),
    )
    files = {
        "index.html": html.encode(),
        "policies.png": draw_page(answerer, pages[SHOWN], trials, plan, model_name),
        **figures,
        "table.csv": table_csv(summary).encode(),
        "maps.csv": maps_csv(shown).encode(),
        "budgets.csv": table_csv(shown, timed=shown is summary).encode(),
        "results.json": _results(summary, pages, trials).encode(),
    }
    paths = write_together(out, files)
    return Result(pages, trials, summary, dict(zip(files, paths, strict=True)))


_TITLES = {
    "maps.png": "Reading by size of the picture: native, one size for all, their difference",
    "budgets.png": "Exact match against mean visual tokens",
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


def _ask_live(
    answerer: LocalAnswerer,
    seed: int,
    num_questions: int,
    plan: Plan,
    made: dict[str, str],
    voice: Voice,
) -> Summary:
    policies = plan.everything
    total, last = num_questions * len(policies), [time.monotonic()]
    voice.progress(f"asking {num_questions} fresh questions under {len(policies)} policies")

    def report(done: int) -> None:
        if time.monotonic() - last[0] > 4 or done == total:
            last[0] = time.monotonic()
            voice.progress(f"{done} of {total} answers")

    questions = ((document.image, question) for document, question in _draw(seed, num_questions))
    trials, ms = time_trials(answerer, questions, policies, report=report)
    return summarize(trials, plan, seed=seed, made=made, ms=ms)


def ask_pages(
    answerer: LocalAnswerer, pages: Sequence[Page], plan: Plan, voice: Voice
) -> list[Trial]:
    """Asks about each page under each policy of table and explorer; says those of the table.

    One by one, so that ms is that answer's alone; views that are the same are asked about once.
    """
    spoken = [policy for policy in plan.table if policy != NO_PICTURE]
    policies = dict.fromkeys((*spoken, *slider_policies(plan), *other_policies(plan)))
    trials = []
    for page in pages:
        height, width = page.image.shape[:2]
        voice.say(
            f"\n{page.path.name}  {width} x {height} px  {page.question.text}  "
            f"(there: {page.question.answer})"
        )
        for policy in policies:
            trial = ask_warm(answerer, page, policy)
            trials.append(trial)
            if policy in spoken:
                voice.say(_line(trial, max(map(len, spoken))))
    return trials


def ask_warm(answerer: LocalAnswerer, page: Page, policy: str) -> Trial:
    """Asks, and once more where the first time compiled: ms is of an answer alone."""
    request = make_request(page.image, page.question, policy)
    with note_compiles() as compiles:
        answer = answerer.answer([request], sampling=SAMPLING)[0][0]
    if compiles:
        answer = answerer.answer([request], sampling=SAMPLING)[0][0]
    return Trial(page.question, policy, answer)


def _line(trial: Trial, width: int) -> str:
    cost = trial.answer.cost
    return (
        f"  {trial.policy:<{width}}  {shown(trial.answer.text):<12} "
        f"{'right' if trial.is_right else 'WRONG':<6} {cost.visual_tokens:>5} visual tokens  "
        f"retention {cost.retention_ratio:5.2f}  {sum(cost.ms.values()):6.0f} ms"
    )


def shown(text: str) -> str:
    """An answer as a cell: at most 24 characters, none that moves the cursor."""
    text = "".join(c if c.isprintable() else "\ufffd" for c in text) or "(nothing)"
    return text if len(text) <= 24 else text[:21] + "..."


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


def draw_page(
    answerer: LocalAnswerer, page: Page, trials: Sequence[Trial], plan: Plan, model_name: str
) -> bytes:
    """Returns the picture of one page under each policy of the table, a PNG."""
    own = {t.policy: t for t in trials if t.question is page.question and t.answer.views}
    panels = [_panel(page, own[policy]) for policy in plan.table if policy in own]
    return draw_policies(
        panels,
        question=page.question.text,
        expected=page.question.answer,
        stride=answerer.spec.stride,
        note=f"{model_name}, {page.path.name}: each picture as the encoder received it, enlarged",
    )


def _panel(page: Page, trial: Trial) -> Panel:
    view, cost = trial.answer.views[0], trial.answer.cost
    pixels = render_view(page.image, view)
    return Panel(
        policy=trial.policy,
        pixels=pixels,
        answer=trial.answer.text,
        is_right=trial.is_right,
        visual_tokens=cost.visual_tokens,
        retention_ratio=cost.retention_ratio,
        detail=cut_detail(pixels, view, page.question.box) if page.question.box else None,
    )


def _results(summary: Summary, pages: Sequence[Page], trials: Sequence[Trial]) -> str:
    files = {page.question.id: page.path.name for page in pages}
    content = {
        "answers": to_json(summary),
        "closing": closing_sentence(summary),
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

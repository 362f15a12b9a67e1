"""The demo: documents on disk, questions under several policies, a table and a picture."""

import json
import math
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mres_jax.data.documents import item_seed
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.views import render_view
from mres_jax.errors import MresError
from mres_jax.evaluation.figures import Panel, draw_policies
from mres_jax.evaluation.pages import Page, cut_detail, write_pages
from mres_jax.evaluation.trials import Tally, Trial, draw_questions, run_trials, tally
from mres_jax.files import write_together
from mres_jax.inference.answer import LocalAnswerer
from mres_jax.protocols import Request, Sampling
from mres_jax.resolution.policies import check_policy, parse_policy

SIDE = 256  # of the fixed policy, pixels
POLICIES = ("native", f"fixed:{SIDE}", "scale:0.5", "budget:128")
COMPILED = 1.0  # seconds; no answer takes so long otherwise
SAMPLING = Sampling(max_new_tokens=32)
SHOWN = 4  # the page of the picture: a wide invoice
TABLE = 2_000  # distance of the seeds of the table from the user's


class Result(NamedTuple):
    """Everything that the demo found."""

    pages: list[Page]
    trials: list[Trial]  # of the pages, policies inside
    tallies: list[Tally]  # of the live questions
    picture: pathlib.Path


def default_policies(spec: ProcessorSpec) -> tuple[str, ...]:
    """Returns `POLICIES`, the fixed side in whole visual tokens and within `max_pixels`."""
    most = math.isqrt(spec.max_pixels) // spec.stride
    side = max(1, min(round(SIDE / spec.stride), most)) * spec.stride
    return tuple(f"fixed:{side}" if policy == f"fixed:{SIDE}" else policy for policy in POLICIES)


def run_demo(
    answerer: LocalAnswerer,
    *,
    out: str | pathlib.Path,
    seed: int = 0,
    num_questions: int = 200,
    policies: Sequence[str] | None = None,
    model_name: str = "mres-tiny",
    say: Callable[[str], None] = print,
    progress: Callable[[str], None] = lambda line: None,
) -> Result:
    """Runs the demo.

    Args:
      answerer: of a model that reads documents.
      out: directory for pages, picture and `results.json`.
      seed: of all documents and questions.
      num_questions: of the table, about fresh documents.
      policies: strings, in the order of the rows; None takes `default_policies`.
      model_name: for the foot of the picture.
      say: takes lines of results.
      progress: takes lines about what goes on.

    Raises:
      MresError: fewer than one question, or a policy that the model cannot take.
      RunError: results cannot be written.
    """
    if num_questions < 1:
        raise MresError(f"demo: {num_questions} questions; ask at least 1.")
    policies = default_policies(answerer.spec) if policies is None else policies
    for policy in policies:
        check_policy(parse_policy(policy), answerer.spec)
    out = pathlib.Path(out)
    pages = write_pages(out, seed)
    say(f"{len(pages)} documents in {out}/: {', '.join(page.path.name for page in pages)}")
    trials = ask_pages(answerer, pages, policies, say=say, progress=progress)
    tallies = _ask_live(answerer, seed, num_questions, policies, progress)
    picture = draw_page(answerer, pages[SHOWN], trials, policies, model_name)
    path, _ = write_together(
        out,
        {
            "policies.png": picture,
            "results.json": _results(seed, pages, trials, tallies, policies).encode(),
        },
    )
    return Result(pages, trials, tallies, path)


def ask_pages(
    answerer: LocalAnswerer,
    pages: Sequence[Page],
    policies: Sequence[str],
    *,
    say: Callable[[str], None],
    progress: Callable[[str], None],
) -> list[Trial]:
    """Asks about each page under each policy, one by one, so that ms is that answer's alone."""
    trials = []
    for page in pages:
        height, width = page.image.shape[:2]
        say(
            f"\n{page.path.name}  {width} x {height} px  {page.question.text}  "
            f"(there: {page.question.answer})"
        )
        for policy in policies:
            trial = _ask_warm(answerer, page, policy, progress)
            trials.append(trial)
            say(_line(trial))
    return trials


def _ask_warm(
    answerer: LocalAnswerer, page: Page, policy: str, progress: Callable[[str], None]
) -> Trial:
    """Asks twice: the first time may compile, and ms is of the second."""
    request = Request(
        id=page.question.id, images=[page.image], question=page.question.text, policy=policy
    )
    start = time.monotonic()
    answerer.answer([request], sampling=SAMPLING)
    if time.monotonic() - start > COMPILED:
        progress("compiled for a new length")
    return Trial(page.question, policy, answerer.answer([request], sampling=SAMPLING)[0][0])


def _line(trial: Trial) -> str:
    cost = trial.answer.cost
    return (
        f"  {trial.policy:<11} {shown(trial.answer.text):<12} "
        f"{'right' if trial.is_right else 'WRONG':<6} {cost.visual_tokens:>5} visual tokens  "
        f"retention {cost.retention_ratio:4.2f}  {sum(cost.ms.values()):6.0f} ms"
    )


def shown(text: str) -> str:
    """An answer as a cell: at most 24 characters, none that moves the cursor."""
    text = "".join(c if c.isprintable() else "\ufffd" for c in text) or "(nothing)"
    return text if len(text) <= 24 else text[:21] + "..."


def _ask_live(
    answerer: LocalAnswerer,
    seed: int,
    num_questions: int,
    policies: Sequence[str],
    progress: Callable[[str], None],
) -> list[Tally]:
    total, last = num_questions * len(policies), [time.monotonic()]
    progress(f"asking {num_questions} fresh questions under {len(policies)} policies")

    def report(done: int) -> None:
        if time.monotonic() - last[0] > 4 or done == total:
            last[0] = time.monotonic()
            progress(f"{done} of {total} answers")

    questions = (
        (document.image, question)
        for document, question in draw_questions(item_seed(seed, TABLE), num_questions)
    )
    return tally(run_trials(answerer, questions, policies, report=report))


def tally_rows(tallies: Sequence[Tally]) -> tuple[list[str], list[list[str]]]:
    """Returns headers and cells of the table."""
    kinds = [kind for kind in ("rc", "sc", "point") if any(kind in t.accuracy for t in tallies)]
    names = {"rc": "reading (RC)", "sc": "seeing (SC)", "point": "pointing"}
    headers = ["policy", *(names[k] for k in kinds), "visual tokens", "retention ratio"]
    rows = []
    for row in tallies:
        cells = []
        for kind in kinds:
            mean, low, high = row.accuracy[kind]
            cells.append(f"{mean:.3f} [{low:.3f}, {high:.3f}]")
        tokens = f"{row.visual_tokens:.0f}"
        rows.append([row.policy, *cells, tokens, f"{row.retention_ratio:.2f}"])
    return headers, rows


def draw_page(
    answerer: LocalAnswerer,
    page: Page,
    trials: Sequence[Trial],
    policies: Sequence[str],
    model_name: str,
) -> bytes:
    """Returns the picture of one page under each policy, a PNG."""
    own = {trial.policy: trial for trial in trials if trial.question is page.question}
    panels = [_panel(page, own[policy]) for policy in policies]
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


def _results(
    seed: int,
    pages: Sequence[Page],
    trials: Sequence[Trial],
    tallies: Sequence[Tally],
    policies: Sequence[str],
) -> str:
    files = {page.question.id: page.path.name for page in pages}
    content: dict[str, Any] = {
        "seed": seed,
        "policies": list(policies),
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
                "ms": dict(trial.answer.cost.ms),
            }
            for trial in trials
        ],
        "table": [
            row._asdict() | {"accuracy": {k: v._asdict() for k, v in row.accuracy.items()}}
            for row in tallies
        ],
    }
    return json.dumps(content, indent=2) + "\n"

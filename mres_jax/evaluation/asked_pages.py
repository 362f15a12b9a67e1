"""Single pictures asked about under each policy, as lines and as one drawing."""

import dataclasses
from collections.abc import Callable, Sequence

from mres_jax.data.views import render_view
from mres_jax.evaluation.explorer import other_policies, slider_policies
from mres_jax.evaluation.figures import Panel, draw_policies
from mres_jax.evaluation.pages import Page, cut_detail
from mres_jax.evaluation.plan import Plan
from mres_jax.evaluation.trials import NO_PICTURE, Trial, make_request, note_compiles
from mres_jax.inference.answer import LocalAnswerer
from mres_jax.protocols import Sampling

SAMPLING = Sampling(max_new_tokens=32)


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


def draw_page(
    page: Page, trials: Sequence[Trial], plan: Plan, *, stride: int, model_name: str
) -> bytes:
    """Returns the picture of one page under each policy of the table, a PNG.

    Args:
      page: that was asked about.
      trials: of it, and maybe of others.
      plan: the policies.
      stride: side of one visual token, px.
      model_name: for the foot.
    """
    own = {t.policy: t for t in trials if t.question is page.question and t.answer.views}
    panels = [_panel(page, own[policy]) for policy in plan.table if policy in own]
    return draw_policies(
        panels,
        question=page.question.text,
        expected=page.question.answer,
        stride=stride,
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

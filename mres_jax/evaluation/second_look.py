"""The demo's second look: a zoom whose window a gradient chose, against its controls."""

from typing import NamedTuple

from mres_jax.data.documents import item_seed
from mres_jax.data.views import render_view
from mres_jax.evaluation.figures import Panel, draw_policies
from mres_jax.evaluation.findings import say_share
from mres_jax.evaluation.trials import Tally, Trial, draw_questions, tally, time_trials
from mres_jax.geometry import Box, View
from mres_jax.inference.answer import LocalAnswerer
from mres_jax.inference.show import draw_crop
from mres_jax.protocols import Answer

COARSE = 96  # visual tokens of the first pass
ONCE = f"budget:{COARSE}"
SAME = f"budget:{2 * COARSE}"  # as many tokens as both passes take
ZOOM = f"zoom,window=0.5,coarse={COARSE},source=gradient"
CHANCE = f"zoom,window=0.5,coarse={COARSE},source=random"
POLICIES = ("native", ONCE, SAME, ZOOM, CHANCE)
BATCH = 12
QUESTIONS = 2 * BATCH  # the first batch compiles, the second is timed
SEEDS = 3_000  # distance of the seeds of these pages from the user's


class SecondLook(NamedTuple):
    """What came of it.

    Attributes:
      tallies: one per policy, `POLICIES`.
      line: what they show, in one sentence.
      picture: one page in both passes and under the controls, a PNG.
    """

    tallies: tuple[Tally, ...]
    line: str
    picture: bytes


def look_twice(
    answerer: LocalAnswerer, *, seed: int, num_questions: int = QUESTIONS, model_name: str
) -> SecondLook:
    """Asks about values on fresh pages of about 400 x 400 px, one on each.

    Args:
      answerer: of a model that reads documents.
      seed: of the pages.
      num_questions: how many.
      model_name: for the foot of the picture.

    Raises:
      PolicyError: a model whose visual tokens are no grid.
    """
    drawn = draw_questions(
        item_seed(seed, SEEDS), num_questions, types=("rc",), per_document=1, bins=(("D", "NM"),)
    )
    asked = [(document.image, question) for document, question in drawn]
    trials, ms = time_trials(answerer, asked, POLICIES, batch=BATCH)
    tallies = tuple(tally(trials, ms))
    by_question = [
        {t.policy: t for t in trials if t.question.id == question.id} for _, question in asked
    ]
    told = [own[ZOOM].is_right - own[ONCE].is_right - own[CHANCE].is_right for own in by_question]
    best = told.index(max(told))  # what the picture is to show, where there is such a page
    picture = _draw(asked[best][0], by_question[best], answerer, model_name)
    return SecondLook(tallies, second_look_line(tallies), picture)


def second_look_line(tallies: tuple[Tally, ...]) -> str:
    """Returns one sentence on what the second look brought."""
    by_policy = {row.policy: row for row in tallies}
    share = {policy: row.accuracy["rc"] for policy, row in by_policy.items()}
    tokens = {policy: row.visual_tokens for policy, row in by_policy.items()}
    if share[ZOOM].low > share[CHANCE].high:
        verdict = "so it is the place that counts"
    else:
        verdict = "which so few questions do not tell apart"
    ahead = share[ZOOM].mean - share[SAME].mean
    return (
        f"A second look where the gradient of the answer's first token points reads "
        f"{say_share(share[ZOOM])} of {by_policy[ZOOM].num_questions} values at {tokens[ZOOM]:.0f} "
        f"visual tokens, the first look alone {share[ONCE].mean:.2f} at {tokens[ONCE]:.0f}, a "
        f"window by chance {share[CHANCE].mean:.2f}, {verdict}; one look at {tokens[SAME]:.0f} "
        f"tokens reads {share[SAME].mean:.2f} ({ahead:+.2f} for two), native "
        f"{share['native'].mean:.2f} at {tokens['native']:.0f}."
    )


def _draw(image, trials: dict[str, Trial], answerer: LocalAnswerer, model_name: str) -> bytes:
    """The picture of one page (`uint8 [h w 3]`)."""
    question = trials[ZOOM].question
    first, second = trials[ZOOM].answer.passes
    box, stride = question.box, answerer.spec.stride
    assert box is not None  # a value is written somewhere

    def panel(name: str, answer: Answer, is_right: bool, frame: Box | None = None) -> Panel:
        (view,) = answer.views
        pixels = render_view(image, view)
        return Panel(
            policy=name,
            pixels=pixels if frame is None else draw_crop(pixels, frame),
            answer=answer.text if frame is None else answer.text.split(", (")[0],
            is_right=is_right,
            visual_tokens=answer.cost.visual_tokens,
            retention_ratio=answer.cost.retention_ratio,
        )

    (window,), (coarse,) = second.views, first.views
    return draw_policies(
        [
            panel("first look alone", trials[ONCE].answer, trials[ONCE].is_right),
            panel("zoom, pass 1", first, window.crop.holds(box), _seen_in(coarse, window.crop)),
            panel("zoom, pass 2", second, trials[ZOOM].is_right),
            panel("window by chance", trials[CHANCE].answer, trials[CHANCE].is_right),
        ],
        question=question.text,
        expected=question.answer,
        stride=stride,
        note=f"{model_name}; pass 1 names places in thousandths, the window is framed: right where "
        "it holds the value",
        columns=2,
    )


def _seen_in(view: View, crop: Box) -> Box:
    """A part of the picture in px of a whole view of it."""
    y, x = (seen / whole for seen, whole in zip(view.size, view.crop.size, strict=True))
    return Box(
        round(crop.top * y), round(crop.left * x), round(crop.bottom * y), round(crop.right * x)
    )

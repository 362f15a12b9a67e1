"""One resolution per task: planted signals are found again, and every refusal has its reason."""

import contextlib
import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from mres_jax.data.rows import QuestionRow, Task
from mres_jax.data.spec import VideoSpec
from mres_jax.data.video import FrameSampling
from mres_jax.errors import MresError, PolicyError
from mres_jax.geometry import ClipSize, Size
from mres_jax.inference.remote import RemoteAnswerer, remote_spec
from mres_jax.inference.show import png
from mres_jax.protocols import Answer, Request, extent_of
from mres_jax.resolution.complexity import find_complexity
from mres_jax.resolution.policies import check_extents, parse_policy
from mres_jax.resolution.task import (
    Candidate,
    Formula,
    MeasuredTask,
    NoEntropyError,
    PolicyRouter,
    calibrate,
    candidate_of,
    choose_by_formula,
    choose_by_sweep,
    constant_error,
    default_candidates,
    leave_one_out,
    measure_task,
    perturb,
    select_per_image,
)
from mres_jax.resolution.task.candidates import in_order
from mres_jax.resolution.task.formula import snap
from mres_jax.resolution.task_policy import choice_file
from mres_jax.testing import Reply, said, serve_script, tiny_qwen2_vl

SPEC = remote_spec()
BUDGETS = [candidate_of(f"budget:{16 * 4**i}", SPEC) for i in range(4)]  # 112 to 896 px
SIDES = [224.0, 336.0, 448.0, 560.0, 672.0]
FIXED = tuple(Candidate(f"fixed:{side:.0f}", side) for side in SIDES)


def measured(complexity: float, variance: float, best: int = 0, *, rows: int = 20, noise=0.0):
    """A task with these means over its rows, whose best candidate is known."""
    draw = np.random.default_rng(int(1e6 * complexity * variance) + best)
    wiggle = np.sqrt(variance) * np.array([1, -1, 1, -1, 0]) * np.sqrt(5 / 4)
    uncertainty = 1 + np.tile(wiggle, (rows, 1))
    scores = np.zeros((rows, 5))
    scores[:, best:] = 1.0
    return MeasuredTask(
        name=f"t{best}",
        ids=tuple(map(str, range(rows))),
        candidates=FIXED,
        complexity=complexity * (1 + noise * draw.uniform(-1, 1, rows)),
        uncertainty=uncertainty,
        scores=scores,
        tokens=np.tile([256.0, 576.0, 1024.0, 1600.0, 2304.0], (rows, 1)),
        num_answers=rows * 5,
    )


def test_calibration_finds_a_planted_k():
    """r = 224 (1 + 0.5 z) with z of 0, 1, 2, 4: sides 224, 336, 448, 672."""
    planted = [(1.0, 1e-12, 0), (20.0, 0.05, 1), (10.0, 0.2, 2), (40.0, 0.1, 4)]
    tasks = [measured(*each) for each in planted]
    formula = calibrate(tasks)
    z = np.array([c * v for c, v, _ in planted]) / formula.complexity_ref / formula.variance_ref
    assert formula.coefficients[0] * z[1:] == pytest.approx([0.5, 1.0, 2.0], rel=1e-6)
    assert [choose_by_formula(task, formula).policy for task in tasks] == [
        "fixed:224",
        "fixed:336",
        "fixed:448",
        "fixed:672",
    ]


def test_calibration_is_the_closed_form_where_nothing_fits_exactly():
    tasks = [measured(10.0, 0.1, 1), measured(30.0, 0.2, 2), measured(20.0, 0.4, 3)]
    formula = calibrate(tasks, base_side=336.0)
    z = np.array([t.complexity.mean() * t.variance.mean() for t in tasks])
    z /= formula.complexity_ref * formula.variance_ref
    target = np.array([336, 448, 560]) / 336 - 1
    assert formula.coefficients == (pytest.approx((z * target).sum() / (z**2).sum()),)


def test_the_product_never_goes_below_its_base_and_the_logarithms_do():
    tasks = [measured(10.0, 0.1, 0), measured(20.0, 0.2, 2), measured(40.0, 0.4, 4)]
    product, loglinear = (
        calibrate(tasks, combine=c, base_side=448.0) for c in ("product", "loglinear")
    )
    for complexity in (1.0, 10.0, 100.0):
        if product.coefficients[0] >= 0:
            assert product.side(complexity, 0.1) >= 448.0
    assert loglinear.side(10.0, 0.1) < 448.0 < loglinear.side(40.0, 0.4)


def test_the_sum_finds_planted_slopes():
    """r = 224 (1 + 0.02 C + 5 V)."""
    tasks = [measured(5.0, 0.08, 1), measured(25.0, 0.1, 2), measured(75.0, 0.1, 4)]
    formula = calibrate(tasks, combine="sum")
    a, b = formula.coefficients
    assert (a / formula.complexity_ref, b / formula.variance_ref) == pytest.approx((0.02, 5.0))


def test_leaving_tasks_out_in_turn_beats_the_best_constant_where_signals_tell():
    planted = [(8.0, 0.01, 0), (20.0, 0.05, 1), (10.0, 0.2, 2), (30.0, 0.1, 3), (40.0, 0.1, 4)]
    tasks = [measured(*each) for each in planted]
    ours, constant = leave_one_out(tasks), constant_error(tasks)
    assert np.mean(ours) <= 0.5 * np.mean(constant)
    assert np.mean(constant) >= 1.0


@given(side=st.floats(1, 5_000))
def test_snapping_takes_the_nearest_candidate_and_clips_at_the_ends(side):
    nearest = SIDES[snap(side, FIXED)]
    assert abs(nearest - side) == min(abs(s - side) for s in SIDES)


@pytest.mark.parametrize("method", ["formula", "sweep"])
def test_confidence_is_the_share_of_resamplings_that_agree(method):
    steady = measured(10.0, 0.2, 2)
    formula = calibrate([steady, measured(20.0, 0.05, 1), measured(40.0, 0.1, 4)])
    if method == "formula":
        sure, unsure = (
            choose_by_formula(measured(10.0, 0.2, 2, noise=noise), formula) for noise in (0.0, 3.0)
        )
    else:
        divided = measured(10.0, 0.2, 2)
        divided.scores[::2, 2:] = 0.0
        divided.scores[::2, 1] = 1.0
        sure, unsure = choose_by_sweep(steady), choose_by_sweep(divided)
    assert sure.confidence == 1.0 > unsure.confidence
    assert sum(unsure.shares.values()) == pytest.approx(1.0)
    assert unsure.interval[0] <= unsure.side <= unsure.interval[1]
    assert unsure.interval[1] > unsure.interval[0]


def test_resamplings_without_signal_choose_nothing_by_logarithms():
    tasks = [measured(10.0, 0.2, 2), measured(20.0, 0.05, 1), measured(40.0, 0.1, 4)]
    formula = calibrate(tasks, combine="loglinear")
    task = measured(10.0, 0.2, 2, rows=4)
    task.complexity[1:] = 0.0  # as flat pictures have
    choice = choose_by_formula(task, formula)
    drawn = 1 - (3 / 4) ** 4  # of the resamplings have the row that is not flat
    assert sum(choice.shares.values()) == pytest.approx(drawn, abs=0.06)
    assert choice.interval[0] <= choice.side <= choice.interval[1]
    task.complexity[:] = 0.0
    with pytest.raises(MresError, match="needs signals above 0"):
        choose_by_formula(task, formula)


def test_a_sweep_takes_the_cheapest_of_equals_and_tells_what_the_largest_would_cost():
    choice = choose_by_sweep(measured(10.0, 0.2, 2))
    assert (choice.policy, choice.tokens, choice.largest_tokens) == ("fixed:448", 1024.0, 2304.0)
    assert (choice.score, choice.largest_score) == (1.0, 1.0)


def test_variance_forgets_what_is_added_and_is_none_for_a_model_blind_to_size():
    task = measured(10.0, 0.2)
    assert task.variance == pytest.approx(np.full(20, 0.2))
    more = dataclasses.replace(task, uncertainty=task.uncertainty + 3.0)
    assert more.variance == pytest.approx(task.variance)
    blind = dataclasses.replace(task, uncertainty=np.ones_like(task.uncertainty))
    assert (blind.variance == 0).all()
    with pytest.raises(MresError, match="answers that do not change with resolution"):
        calibrate([blind, blind])
    with pytest.raises(MresError, match="needs signals above 0"):
        Formula(
            combine="loglinear",
            base_side=336.0,
            coefficients=(0.0, 1.0, 1.0),
            complexity_ref=1.0,
            variance_ref=1.0,
        ).side(1.0, 0.0)


def test_pictures_share_a_budget_by_their_signals():
    task = measured(10.0, 0.2, rows=40)
    task.complexity[:] = np.linspace(0, 20, 40)
    picked = select_per_image(task, 900.0)
    spent = task.tokens[np.arange(40), picked].mean()
    assert (np.diff(picked) >= 0).all()
    assert len(set(picked)) >= 3
    # one step of one picture more would not fit
    assert 900 - 704 / 40 - 1 <= spent <= 900
    assert (select_per_image(task, 256.0) == 0).all()
    with pytest.raises(MresError, match="mean of 200 visual tokens is below the 256 that fixed"):
        select_per_image(task, 200.0)


class Planted:
    """Doubts a picture the more the smaller it is shown and the later its perturbation."""

    def __init__(self, entropies=None, spec=SPEC):
        self.requests: list[Request] = []
        self.entropies, self.spec = entropies, spec

    def answer(self, requests, *, n=1, sampling=None, seed=0):
        self.requests += requests
        return [[self._one(request)] for request in requests]

    def _one(self, request: Request) -> Answer:
        sizes = [extent_of(item) for item in request.images]
        views = parse_policy(request.policy or "native")(sizes, "", self.spec)
        tokens = max(1, sum(view.encoded_size.area for view in views) // 28**2)
        number = int(request.id.rpartition("/")[2])  # of the perturbation
        planted = [1 / tokens + number, 3 / tokens + number]
        doubt = planted if self.entropies is None else self.entropies
        right = "yes" if tokens >= 200 else "no"
        return said(right, entropies=doubt or None, views=views, visual_tokens=tokens)


def task_of(rows: int = 20, size=(480, 600)) -> Task:
    draw = np.random.default_rng(0)
    made = []
    for i in range(rows):
        picture = png(draw.integers(0, 256, (*size, 3), np.uint8))
        made.append(
            QuestionRow(id=f"r{i}", pictures=(picture,), question="Is it?", answers=("yes",))
        )
    return Task(name="planted", rows=tuple(made))


def test_measuring_asks_each_row_under_each_candidate_and_perturbation_once():
    answerer = Planted()
    task = measure_task(
        answerer, task_of(3), BUDGETS, perturbations=2, complexity="compressed", seed=1
    )
    assert len(answerer.requests) == task.num_answers == 3 * 4 * 2
    assert len({request.id for request in answerer.requests}) == 24
    assert task.uncertainty == pytest.approx(2 / task.tokens + 0.5)  # of perturbations 0 and 1
    assert task.scores is not None
    assert task.scores.tolist() == [[0.0, 0.0, 1.0, 1.0]] * 3
    assert (task.complexity > 0.8).all()  # noise does not compress
    first = [r for r in answerer.requests if r.id.startswith("r0/budget:16/")]
    assert not np.array_equal(first[0].images[0], first[1].images[0])


def test_clips_are_changed_alike_in_all_frames_and_asked_about_whole(tmp_path):
    draw, answerer = np.random.default_rng(0), Planted(spec=tiny_qwen2_vl().spec)
    still = tmp_path / "still.png"
    still.write_bytes(png(draw.integers(0, 256, (60, 80, 3), np.uint8)))
    rows = [
        QuestionRow(id=f"r{i}", pictures=(), clips=((str(still),) * 4,), question="?")
        for i in range(2)
    ]
    task = measure_task(
        answerer, Task(name="clips", rows=tuple(rows)), BUDGETS, perturbations=2, complexity="mdl"
    )
    assert task.scores is None
    (picture,) = rows[0].items(FrameSampling())[0].frames[:1]
    assert task.complexity == pytest.approx(find_complexity("mdl")(picture))
    for request in answerer.requests:
        (clip,) = request.images
        assert all(np.array_equal(frame, clip.frames[0]) for frame in clip.frames)
        is_changed = request.id.endswith("/1")
        assert np.array_equal(clip.frames[0], picture) != is_changed


def test_rows_are_taken_in_batches_without_losing_their_order():
    one = measure_task(
        Planted(), task_of(19, (30, 40)), BUDGETS, perturbations=1, complexity="entropy"
    )
    assert one.ids == tuple(f"r{i}" for i in range(19))
    assert one.tokens.shape == (19, 4)


def test_perturbations_are_small_differ_by_row_and_repeat():
    image = np.random.default_rng(0).integers(60, 190, (200, 300, 3), np.uint8)
    assert perturb(image, 0, name="a") is image
    one, again, other = (perturb(image, 1, name=n) for n in ("a", "a", "b"))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    flat = np.full((50, 50, 3), 200, np.uint8)
    # 5 % of 72 above the middle, and 6
    assert np.abs(perturb(flat, 1, name="a").astype(int) - 200).max() <= 10


def test_answers_without_entropies_are_refused():
    with pytest.raises(NoEntropyError, match="tells no entropies"):
        measure_task(Planted(entropies=()), task_of(2), BUDGETS, complexity="entropy")


def test_a_task_of_one_row_cannot_be_measured():
    with pytest.raises(
        MresError, match="task planted: 1 rows and 3 perturbations; at least 2 rows"
    ):
        measure_task(Planted(), task_of(1), BUDGETS)


def test_the_whole_procedure_runs_against_a_server_and_sends_the_pixels_of_each_candidate():
    """The server doubts pictures of fewer than 200 tokens, and is wrong about them."""

    def script(received):
        tokens = sum(image.shape[0] * image.shape[1] for image in received.images) // 28**2
        good = tokens >= 200
        return Reply(text="yes" if good else "no", probabilities=(0.97,) if good else (0.5, 0.5))

    task = task_of(3)
    with serve_script(script) as server:
        result = measure_task(
            RemoteAnswerer(server.address), task, BUDGETS, perturbations=1, complexity="entropy"
        )
    assert result.is_bound
    assert choose_by_sweep(result).policy == "budget:256"
    assert result.uncertainty[0, 0] == pytest.approx(math.log(2))
    assert (result.variance > 0).all()
    (image,) = task.rows[0].images()
    from mres_jax.data.views import render_view

    sent = [r.images[0] for r in server.received]
    for candidate in BUDGETS:
        (view,) = parse_policy(candidate.policy)([Size(480, 600)], "", SPEC)
        expected = render_view(image, view)
        assert any(np.array_equal(pixels, expected) for pixels in sent), candidate.policy


def test_candidates_follow_the_model_and_are_at_least_three():
    assert [c.policy for c in default_candidates(SPEC)][:2] == ["budget:16", "budget:32"]
    assert default_candidates(SPEC)[-1].policy == "budget:2048"
    assert candidate_of("budget:256", SPEC).side == 16 * 28
    assert candidate_of("fixed:336", SPEC).side == 336
    with pytest.raises(PolicyError, match="native is no candidate"):
        candidate_of("native", SPEC)
    with pytest.raises(PolicyError, match="at least 3 of different sizes"):
        in_order(BUDGETS[:2])
    with pytest.raises(PolicyError, match="at least 3 of different sizes"):
        in_order([*BUDGETS, candidate_of("fixed,tokens=64", SPEC)])
    with pytest.raises(PolicyError, match="takes only 336 x 336 px, so there is nothing to choose"):
        default_candidates(dataclasses.replace(SPEC, image_size=336))


def test_a_router_sends_each_policy_to_its_model():
    small, large = Planted(), Planted()
    router = PolicyRouter({"fixed:224": small, "fixed:448": large})
    image = np.zeros((40, 40, 3), np.uint8)
    policies = ["fixed:448", "fixed:224", "fixed:448"]
    requests = [
        Request(id=f"{i}", images=[image], question="q", policy=p) for i, p in enumerate(policies)
    ]
    answers = router.answer(requests)
    assert [a.cost.visual_tokens for (a,) in answers] == [256, 64, 256]
    assert (len(small.requests), len(large.requests)) == (1, 2)
    with pytest.raises(PolicyError, match="no model for policy fixed:336; have fixed:224"):
        router.answer([dataclasses.replace(requests[0], policy="fixed:336")])


def test_a_policy_follows_the_file_of_a_choice(tmp_path):
    file = tmp_path / "choice.json"
    file.write_bytes(choice_file("budget:256", {"task": "x"}))
    policy = parse_policy(f"task,file={file}")
    sizes = [Size(1_000, 900)]
    assert policy(sizes, "", SPEC) == parse_policy("budget:256")(sizes, "", SPEC)
    assert parse_policy(str(policy)) == policy
    clip = ClipSize(Size(64, 64), (0.0, 0.5))
    video = VideoSpec(token_id=3, min_pixels=1, max_pixels=10**6)
    spec = dataclasses.replace(SPEC, accepts=SPEC.accepts | {"frame"}, video=video)
    for chosen, takes in (("budget:256", True), ("tiles:64", False)):
        file.write_bytes(choice_file(chosen, {}))
        policy = parse_policy(f"task,file={file}")
        with contextlib.nullcontext() if takes else pytest.raises(PolicyError, match="no clips"):
            check_extents(policy, [clip], spec)
    for content, message in (
        (b"{", "is no file of mres resolution"),
        (b'{"version": 2, "policy": "native"}', "version 1"),
        (choice_file("task,file=x", {}), "names no resolution"),
        (choice_file("natve", {}), "did you mean native"),
    ):
        file.write_bytes(content)
        with pytest.raises(PolicyError, match=message):
            parse_policy(f"task,file={file}")
    with pytest.raises(PolicyError, match=r"none\.json: no such file or directory"):
        parse_policy("task,file=none.json")


def test_a_formula_travels_as_json_and_a_broken_one_is_refused():
    formula = calibrate([measured(10.0, 0.1, 1), measured(30.0, 0.2, 2)])
    assert Formula.from_dict(formula.to_dict()) == formula
    changes = (
        {"coefficients": [1.0, 2.0]},
        {"coefficients": [math.nan]},
        {"combine": 3},
        {"extra": 1},
        {"complexity_ref": 0},
        {"complexity_ref": "1"},
        {"variance_ref": -1},
        {"base_side": math.inf},
    )
    for change in changes:
        with pytest.raises(MresError, match="calibration that does not read"):
            Formula.from_dict({**formula.to_dict(), **change})


def test_too_few_reference_tasks_and_unknown_forms_are_refused():
    tasks = [measured(10.0, 0.1, 1), measured(30.0, 0.2, 2)]
    with pytest.raises(MresError, match="1 reference task, but the product form needs at least 2"):
        calibrate(tasks[:1])
    with pytest.raises(MresError, match="2 reference tasks, but the loglinear form needs"):
        calibrate(tasks, combine="loglinear")
    with pytest.raises(MresError, match=r"no form 'prodct' \(did you mean product\?\)"):
        calibrate(tasks, combine="prodct")

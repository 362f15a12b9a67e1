"""Which questions are learnt from, and by whom."""

import itertools
import pathlib

import numpy as np
import pytest

from mres_jax.config import BackboneTraining, load_run
from mres_jax.rewards import Reward, RewardRules, reward
from mres_jax.training.allocator.advantages import judge
from mres_jax.training.allocator.draws import Drawn
from mres_jax.training.allocator.measures import costs_of
from mres_jax.training.allocator.parts import sampling_of
from mres_jax.training.allocator.prompts import open_prompt, open_questions
from mres_jax.training.allocator.rollouts import collect
from mres_jax.training.rl import CAPO

ROOT = pathlib.Path(__file__).parents[3]
# accuracies and formats of the four rollouts of each of three questions
ALL_ALIKE = [(1.0, 1.0)] * 4
OF_TWO_FORMS = [(1.0, 1.0), (1.0, 0.0)] * 2
OF_TWO_SORTS = [(1.0, 1.0), (0.0, 1.0)] * 2
GRPO, SHARED = BackboneTraining(), BackboneTraining(advantage="capo")
ACCURACY = CAPO(shaping_weight=0.0, cost_pressure=0.0, floor=None)


@pytest.fixture
def judge_three(make_run, planted):
    """Judges the three questions, or others of as many rewards, under a run with changes."""

    def make(rewards=None, **changes):
        run = make_run(prompts=3, **changes)
        rows = open_questions(run.data).train[:3]
        prompts = [open_prompt(row, run.data, planted.spec, wire=run.wire) for row in rows]
        of_forms = itertools.chain(ALL_ALIKE, OF_TWO_FORMS, OF_TWO_SORTS)
        plain = [Reward(a, form, a + 0.2 * form, a > 0) for a, form in of_forms]
        earned = iter(rewards or plain)

        def pay(answer, row):
            return next(earned)

        flat, scales = np.zeros(12, np.float32), np.linspace(0.5, 1, 4)[:, None]
        drawn = Drawn(flat, flat, np.tile(scales, (1, 12)), flat, flat, flat)
        names = [row.id for row in rows]
        given = {"rollouts": 1, "sampling": sampling_of(run), "seed": 0}
        groups = collect(prompts, names, drawn, planted.answerer, planted.spec, pay, **given)
        return judge(groups, costs_of(groups, run), run)

    return make


@pytest.mark.parametrize(
    ("backbone", "capo", "kept_backbone", "dropped"),
    [
        (None, CAPO(), [0, 0, 0], 2),
        (GRPO, CAPO(), [0, 1, 1], 1),
        (SHARED, CAPO(), [1, 1, 1], 0),  # which right answer is cheaper it learns from any
        (SHARED, ACCURACY, [0, 0, 1], 2),
    ],
    ids=["frozen", "grpo", "capo", "capo without cost"],
)
def test_what_is_dropped_is_what_neither_learns_from(
    backbone, capo, kept_backbone, dropped, judge_three
):
    found = judge_three(drop_agreeing=True, backbone_training=backbone, capo=capo)
    np.testing.assert_array_equal(found.kept, [False, False, True])
    np.testing.assert_array_equal(found.kept_backbone, np.array(kept_backbone) > 0)
    assert found.counts["groups_dropped"] == dropped
    assert found.counts["groups_without_variance"] == found.counts["groups_all_right"] == 2
    teaches = np.abs(found.backbone).max(axis=(1, 2)) > 0
    if backbone:
        np.testing.assert_array_equal(found.kept_backbone, teaches)


@pytest.mark.parametrize(
    ("rules", "over_no_second", "in_part"),
    [
        (RewardRules(), False, True),
        (RewardRules(grounded_success="sum"), True, True),
        (RewardRules(grounded_success="sum", success=1.5), False, False),
    ],
    ids=["both", "sum", "above 1.5"],
)
def test_what_the_rules_count_as_right_is_what_is_learnt_from(
    rules, over_no_second, in_part, judge_three
):
    texts = ["B <> [90, 95]", "B <> [1, 5]", "B <> [1, 9]", "nothing"] * 3
    rewards = [reward(text, "B <> [1, 5]", "grounded", rules=rules) for text in texts]
    found = judge_three(rewards)
    expected = [over_no_second, True, in_part, False]
    np.testing.assert_array_equal(found.capo.right[..., 0], [expected] * 3)


def test_answers_of_one_accuracy_agree_only_where_they_are_as_right(judge_three):
    mixed = [Reward(1.0, 0.0, 1.0, right) for right in (True, True, False, True)]
    wrong = [Reward(1.0, 0.0, 1.0, False)] * 4
    found = judge_three([*mixed, *wrong, *wrong], drop_agreeing=True)
    np.testing.assert_array_equal(found.kept, [True, False, False])
    assert found.counts["groups_all_wrong"] == found.counts["groups_without_variance"] == 2


def test_by_default_nothing_is_dropped_and_right_answers_say_what_is_cheaper(judge_three):
    found = judge_three(backbone_training=GRPO)
    assert found.kept.all()
    assert found.kept_backbone.all()
    assert found.counts["groups_dropped"] == 0
    cheap_to_dear = np.asarray(found.capo.allocations[0])
    assert (np.diff(cheap_to_dear) <= 0).all()
    assert cheap_to_dear[0] > cheap_to_dear[-1]


def test_the_published_run_leaves_no_question_out():
    assert not load_run(ROOT / "configs/resadapt/paper.py").drop_agreeing

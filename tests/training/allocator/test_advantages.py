"""Which questions are learnt from, and by whom."""

import itertools
import pathlib

import numpy as np
import pytest

from mres_jax.config import BackboneTraining, load_run
from mres_jax.rewards import Reward
from mres_jax.training.allocator.advantages import judge
from mres_jax.training.allocator.draws import Drawn
from mres_jax.training.allocator.measures import costs_of
from mres_jax.training.allocator.parts import sampling_of
from mres_jax.training.allocator.prompts import open_prompt, open_questions
from mres_jax.training.allocator.rollouts import collect

ROOT = pathlib.Path(__file__).parents[3]
# accuracies and formats of the four rollouts of each of three questions
ALL_ALIKE = [(1.0, 1.0)] * 4
OF_TWO_FORMS = [(1.0, 1.0), (1.0, 0.0)] * 2
OF_TWO_SORTS = [(1.0, 1.0), (0.0, 1.0)] * 2
GRPO, SHARED = BackboneTraining(), BackboneTraining(advantage="capo")


@pytest.fixture
def judge_three(make_run, planted):
    """Judges the three questions under a run with changes."""

    def make(**changes):
        run = make_run(prompts=3, **changes)
        rows = open_questions(run.data).train[:3]
        prompts = [open_prompt(row, run.data, planted.spec, wire=run.wire) for row in rows]
        earned = itertools.chain(ALL_ALIKE, OF_TWO_FORMS, OF_TWO_SORTS)

        def pay(answer, row):
            accuracy, form = next(earned)
            return Reward(accuracy, form, accuracy + 0.2 * form, accuracy > 0)

        flat, scales = np.zeros(12, np.float32), np.linspace(0.5, 1, 4)[:, None]
        drawn = Drawn(flat, flat, np.tile(scales, (1, 12)), flat, flat, flat)
        names = [row.id for row in rows]
        given = {"rollouts": 1, "sampling": sampling_of(run), "seed": 0}
        groups = collect(prompts, names, drawn, planted.answerer, planted.spec, pay, **given)
        return judge(groups, costs_of(groups, run), run)

    return make


@pytest.mark.parametrize(
    ("backbone", "kept_backbone", "dropped"),
    [(None, [0, 0, 0], 2), (GRPO, [0, 1, 1], 1), (SHARED, [0, 0, 1], 2)],
    ids=["frozen", "grpo", "capo"],
)
def test_what_is_dropped_is_what_neither_learns_from(backbone, kept_backbone, dropped, judge_three):
    found = judge_three(drop_agreeing=True, backbone_training=backbone)
    np.testing.assert_array_equal(found.kept, [False, False, True])
    np.testing.assert_array_equal(found.kept_backbone, np.array(kept_backbone) > 0)
    assert found.counts["groups_dropped"] == dropped
    assert found.counts["groups_without_variance"] == found.counts["groups_all_right"] == 2
    teaches = np.abs(found.backbone).max(axis=(1, 2)) > 0
    if backbone is GRPO:
        np.testing.assert_array_equal(found.kept_backbone, teaches)


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

"""The learner finds the probabilities that the sampler reported: both mean one distribution.

Float32 on both sides. The order of sums moves the ratio of the backbone by 2e-6 with kernels of the
usual size, by 2e-5 with those of twice the size that are used here.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mres_jax.config import BackboneTraining
from mres_jax.protocols import Sampling
from mres_jax.training.allocator.backbone import (
    BackboneLearner,
    pack_rollouts,
    sampled_logprobs,
)
from mres_jax.training.allocator.draws import draw_allocations, pack_clips
from mres_jax.training.allocator.learner import Decisions
from mres_jax.training.allocator.parts import make_answerer, sampling_of, set_up_allocator
from mres_jax.training.allocator.prompts import open_prompt, open_questions
from mres_jax.training.allocator.rewarding import open_reward
from mres_jax.training.allocator.rollouts import collect
from mres_jax.training.rl import PPO

NAMES = ("a@1.0", "b@1.0")
TOLERANCE = 1e-4


@pytest.fixture
def sampled(make_run, parts):
    """Two questions: run, features, what was drawn, groups, answerer."""
    run = make_run(temperature=0.7, backbone_training=BackboneTraining())
    rows = open_questions(run.data).train[:2]
    prompts = [open_prompt(row, run.data, parts.spec, wire="stills") for row in rows]
    features = [parts.eyes.features(p.frames, p.row.prompt) for p in prompts]
    allocator, answerer = set_up_allocator(run), make_answerer(run, parts)
    drawn = draw_allocations(allocator.split, features, NAMES, count=4, seed=1, clips_per_pack=2)
    groups = collect(
        prompts,
        NAMES,
        drawn,
        answerer,
        parts.spec,
        open_reward("text"),
        rollouts=1,
        sampling=sampling_of(run),
        seed=1,
    )
    return run, features, allocator, drawn, groups, answerer


def off(found, sampled, mask):
    """Largest distance of the ratio from 1 over what was decided."""
    return float(np.abs(np.exp(np.asarray(found) - sampled) - 1)[mask].max())


def test_the_ratio_of_allocator_and_backbone_begins_at_1(sampled, parts, monkeypatch):
    run, features, allocator, drawn, groups, answerer = sampled
    prompt = answerer.prompt
    # the second clip alone, in buffers of another length than it was drawn in
    clips = pack_clips(features[1:], max_clips=3)
    width = len(clips.segment_ids)
    mine = slice(4, 8)
    logits, logprobs = (
        np.pad(x[:, mine], ((0, 0), (0, width - 4))) for x in (drawn.logits, drawn.logprobs)
    )
    mask = np.tile(clips.segment_ids > 0, (4, 1))
    batch = Decisions(clips, logits, logprobs, logits * 0, mask)
    found, _ = _logprobs(allocator.module, batch)
    assert mask.sum() == 16
    assert off(found, logprobs, mask) < TOLERANCE
    assert off(np.asarray(found) + 2e-4, logprobs, mask) > TOLERANCE  # the test can fail

    made = []
    monkeypatch.setattr(answerer, "prompt", lambda asked: made.append(asked.id) or prompt(asked))
    (deferred,) = pack_rollouts(groups, [np.ones((4, 1))] * 2, answerer)
    assert not made  # no pixel is touched before the turn of the pack
    tokens = deferred.make()
    assert sorted(made) == [t.request.id for g in groups for t in g.tries]
    np.testing.assert_array_equal(tokens.loss_mask, deferred.loss_mask)
    assert tokens.loss_mask.sum() == sum(
        len(answer.token_ids) for g in groups for t in g.tries for answer in t.answers
    )
    answered = [t.answers[0].token_ids for g in groups for t in g.tries]
    one = dataclasses.replace(deferred.kind.rung, max_examples=1)  # rungs of its own to learn in
    alone = pack_rollouts(groups, [np.ones((4, 1))] * 2, answerer, ladder=(one,))
    assert [part.kind.rung for part in alone] == [one] * len(answered)
    assert [part.loss_mask.sum() for part in alone] == [len(tokens) for tokens in answered]

    given = {"ppo": PPO(), "sampling": sampling_of(run), "loss_chunk": 16}
    reserved = parts.spec.reserved_token_ids

    def ratio_off(**changes):
        learner = BackboneLearner(
            parts.model, **{**given, "reserved_token_ids": reserved, **changes}
        )
        return off(_logprobs(learner, tokens), tokens.sampled_logprobs, tokens.loss_mask)

    assert ratio_off() < TOLERANCE
    assert ratio_off(reserved_token_ids=()) > 10 * TOLERANCE  # without the sampler's mask
    warmer = dataclasses.replace(sampling_of(run), temperature=1.0)
    assert ratio_off(sampling=warmer) > 10 * TOLERANCE


@nnx.jit
def _logprobs(learner, batch):
    return learner.logprobs(batch)


def test_filters_of_the_sampler_are_the_learners_too():
    scores = jnp.array([[3.0, 1.0, 2.0, 0.0]])
    found = sampled_logprobs(
        lambda hidden: hidden,
        scores,
        jnp.array([2]),
        sampling=Sampling(temperature=1.0, top_k=2),
        forbidden=np.array([True, False, False, False]),
    )
    # token 0 is forbidden, 1 and 2 are kept of the rest: softmax of (1, 2) at 2
    np.testing.assert_allclose(found, [-np.log1p(np.exp(-1.0))], rtol=1e-6)

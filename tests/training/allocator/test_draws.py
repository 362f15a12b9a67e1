"""Allocations are drawn pack by pack, and each pack holds no more clips than it is told to."""

import jax
import numpy as np
import pytest

from mres_jax.testing.allocator_runs import WIDTH
from mres_jax.training.allocator import draws
from mres_jax.training.allocator.draws import draw_allocations
from mres_jax.training.allocator.loop import train_allocator
from mres_jax.training.allocator.parts import set_up_allocator

FRAMES = (4, 2, 7, 1, 3)  # of the clips


@pytest.fixture(scope="module")
def clips():
    draw = np.random.default_rng(0)
    return [
        (
            draw.normal(size=(frames, 64, WIDTH)).astype(np.float32),
            draw.normal(size=(3 + 9 * i, WIDTH)).astype(np.float32),
        )
        for i, frames in enumerate(FRAMES)
    ]


@pytest.fixture
def learner(make_run):
    return set_up_allocator(make_run()).split


def drawn(learner, clips, size, names="abcde"):
    return draw_allocations(learner, clips, list(names), count=3, seed=5, clips_per_pack=size)


def moved(learner):
    """The same learner with other weights: its frames have different distributions."""
    graphdef, params, frozen = learner
    draw = np.random.default_rng(1)
    params = jax.tree.map(lambda x: x + 0.3 * draw.normal(size=x.shape).astype(x.dtype), params)
    return graphdef, params, frozen


def test_the_size_of_packs_changes_no_draw(learner, clips):
    whole = drawn(learner, clips, 5)
    assert whole.logits.shape == whole.scales.shape == (3, sum(FRAMES))
    assert whole.means.shape == (sum(FRAMES),)
    assert len(np.unique(whole.logits)) == whole.logits.size
    again = drawn(learner, clips, 2), drawn(learner, clips, 2)
    for ours, theirs in zip(again[0], whole, strict=True):
        # but for the last bits, which hang on the place in a buffer
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(*again, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_clip_is_seen_alike_in_packs_of_any_size(learner, clips):
    other = moved(learner)
    whole, small = drawn(other, clips, 5), drawn(other, clips, 2)
    assert np.ptp(whole.alpha) > 0.01
    for ours, theirs in zip(small, whole, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_what_a_clip_draws_hangs_on_its_name_and_not_on_its_place(learner, clips):
    whole = drawn(learner, clips, 2).logits
    turned = drawn(learner, clips[::-1], 2, names="edcba").logits
    ends = np.cumsum(FRAMES)
    here = np.split(whole, ends[:-1], axis=1)
    there = np.split(turned, np.cumsum(FRAMES[::-1])[:-1], axis=1)[::-1]
    for ours, theirs in zip(here, there, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_no_more_clips_are_looked_at_together_than_go_into_a_pack(learner, clips, monkeypatch):
    seen = []

    def note(graphdef, params, frozen, clips, *rest):
        seen.append(clips.features)
        return draw(graphdef, params, frozen, clips, *rest)

    draw = draws.draw
    monkeypatch.setattr(draws, "draw", note)
    drawn(learner, clips, 2)
    assert [features.segment_ids.max() for features in seen] == [2, 2, 1]
    assert {features.frames.shape for features in seen} == {(8, 64, WIDTH)}  # one program


def test_a_step_draws_for_no_more_clips_at_a_time_than_it_learns_from(
    make_run, planted, monkeypatch
):
    counts = []

    def note(clips, **sizes):
        counts.append(len(clips))
        return pack_features(clips, **sizes)

    pack_features = draws.pack_features
    monkeypatch.setattr(draws, "pack_features", note)
    run = make_run(body="return 1.0", drop_agreeing=True, prompts=4, clips_per_pack=1)
    train_allocator(run, parts=planted, log=lambda line: None)
    assert counts == [1] * 8  # of two steps in which nothing was learned

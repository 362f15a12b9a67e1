"""What an allocator's loss reads of its batch, and what it does not."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mres_jax.resolution.allocator.config import AllocatorConfig
from mres_jax.resolution.allocator.network import AllocatorNetwork
from mres_jax.training.allocator.draws import pack_clips
from mres_jax.training.allocator.learner import AllocatorLearner, Decisions
from mres_jax.training.learner import shares
from mres_jax.training.rl import PPO, Concentration, Similarity

CONFIG = AllocatorConfig(
    frame_size=8,
    question_size=8,
    hidden_size=16,
    num_layers=1,
    num_heads=2,
    num_temporal_heads=1,
    head_dim=8,
)


def learner_with(form):
    return AllocatorLearner(
        AllocatorNetwork(CONFIG, rngs=nnx.Rngs(0)),
        ppo=PPO(),
        similarity=Similarity(form=form, margin=4.0),
        concentration=Concentration(form=form, cap=1.0),
    )


@pytest.mark.parametrize("form", ["code", "paper"])
def test_no_term_of_the_loss_reads_a_clip_that_was_dropped(form):
    draw = np.random.default_rng(0)
    learner = learner_with(form)
    kept = (draw.normal(size=(4, 64, 8)), draw.normal(size=(3, 8)))
    found = []
    for scale in (1.0, 5.0):
        other = (scale * draw.normal(size=(4, 64, 8)), draw.normal(size=(3, 8)))
        clips = pack_clips([kept, other], max_clips=2)
        mask = jnp.tile(jnp.arange(len(clips.segment_ids)) < 4, (2, 1))
        zeros = jnp.zeros(mask.shape)
        batch = Decisions(clips, zeros, zeros, zeros + 1, mask)
        metrics = learner.loss(batch, shares([batch])[0])[1]
        found.append({name: float(value) for name, value in metrics.items()})
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert min(found[0]["similarity"], found[0]["concentration"]) > 0


def test_a_pack_whose_clips_were_all_dropped_thins_no_term_of_the_loss():
    draw = np.random.default_rng(0)
    learner = learner_with("paper")
    clips = pack_clips([(draw.normal(size=(4, 64, 8)), draw.normal(size=(3, 8)))], max_clips=1)
    zeros = jnp.zeros((2, len(clips.segment_ids)))
    kept, dropped = (Decisions(clips, zeros, zeros, zeros + 1, zeros + n > 0) for n in (1, 0))
    found = []
    for packs in ([kept], [kept, dropped, dropped]):
        parts = [learner.loss(p, s)[1] for p, s in zip(packs, shares(packs), strict=True)]
        found.append({name: float(sum(part[name] for part in parts)) for name in parts[0]})
    assert found[0] == pytest.approx(found[1], rel=1e-5)

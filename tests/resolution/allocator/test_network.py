"""The network: the released code's numbers, clips that do not see each other, a healthy start."""

import dataclasses
import functools
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mres_jax.errors import ConfigError, PackingError
from mres_jax.resolution.allocator.config import PRESETS, AllocatorConfig, preset
from mres_jax.resolution.allocator.features import pack_features
from mres_jax.resolution.allocator.flops import allocator_flops
from mres_jax.resolution.allocator.network import AllocatorNetwork, frame_keys
from mres_jax.resolution.allocator.store import num_parameters

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"


@functools.partial(jax.jit, static_argnums=0)
def run(graphdef, state, clips):
    network = nnx.merge(graphdef, state)
    out = network(clips)
    return out, network.scale(out.policy.mean())


def decide(network, clips):
    return run(*nnx.split(network), clips)[0]


def packed_alike(clips):
    """In buffers of one size, so that all tests share a compile."""
    return pack_features(clips, max_frames=12, max_clips=4, max_question=8)


@pytest.fixture(scope="module")
def released():
    """Names, weights and inputs of the golden numbers."""
    return runpy.run_path(str(GOLDEN / "resadapt_allocator.py"))


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "resadapt_allocator.npz") as file:
        return dict(file)


def fill(network, released):
    """Gives every parameter the value that its name in the released code decides; the names."""
    names = {}
    state = nnx.state(network, nnx.Param)
    for keys, leaf in nnx.to_flat_state(state):
        *path, last = map(str, keys)
        theirs = released["MODULES"][".".join(path)]
        shape = leaf.get_value().shape
        name = f"{theirs}.{'bias' if last == 'bias' else 'weight'}"
        if last == "kernel":
            value = released["weight"](name, shape[::-1]).T
        else:
            value = released["weight"](name, shape)
        leaf.set_value(jnp.asarray(value))
        names[name] = value.size
    nnx.update(network, state)
    return names


def test_scales_and_log_densities_are_the_released_codes(released, golden):
    config = AllocatorConfig(**released["SIZES"], max_scale=2.0, init="released")
    network = AllocatorNetwork(config, rngs=nnx.Rngs(0))
    names = fill(network, released)
    assert sorted(names) == golden["names"].tolist()
    assert sum(names.values()) == golden["num_parameters"]
    clips = pack_features(released["inputs"](), max_frames=24, max_question=12)
    out, scales = run(*nnx.split(network), clips)
    real = np.asarray(clips.segment_ids) > 0
    np.testing.assert_allclose(scales[real], golden["scales"], rtol=1e-4)  # float32; seen 2e-6
    actions = golden["actions"].astype(np.float64)
    logits = jnp.asarray(np.log(actions / (1 - actions)), jnp.float32)
    padded = jnp.zeros(len(real)).at[: len(logits)].set(logits)
    np.testing.assert_allclose(
        out.policy.log_density(padded)[real], golden["logprobs"], rtol=1e-4, atol=1e-5
    )
    assert np.ptp(golden["scales"]) > 0.4  # the weights spread what the frames get


def test_a_clip_does_not_see_what_is_packed_beside_it(network, clips):
    together = decide(network, packed_alike(clips))
    start = 0
    for clip in clips:
        alone = decide(network, packed_alike([clip]))
        end = start + len(clip[0])
        for part, single in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            # the same sums in another order
            np.testing.assert_allclose(part[start:end], single[: end - start], atol=2e-5)
        start = end


@pytest.mark.slow
def test_another_clips_pixels_have_no_gradient_here(network, clips):
    packed = packed_alike(clips)

    def mine(frames):
        out = network(packed._replace(frames=frames))
        return out.policy.alpha[3] + out.features[3].sum()  # the clip of one frame

    gradient = np.asarray(jax.jit(jax.grad(mine))(jnp.asarray(packed.frames)))
    assert np.abs(gradient[3]).max() > 0
    others = np.delete(gradient, 3, axis=0)
    assert not others.any()


def test_padding_is_never_read(network, clips):
    packed = packed_alike(clips)
    frames, question = packed.frames.copy(), packed.question.copy()
    frames[8:], question[3] = 1e4, -1e4
    question[0, 4:] = 1e4  # behind the end of a question
    poisoned = packed._replace(frames=frames, question=question)
    for one, other in zip(
        jax.tree.leaves(decide(network, packed)),
        jax.tree.leaves(decide(network, poisoned)),
        strict=True,
    ):
        np.testing.assert_array_equal(np.asarray(one)[:8], np.asarray(other)[:8])
        assert np.isfinite(np.asarray(other)[:8]).all()


def test_the_question_decides(network, clips):
    (frames, question), *_ = clips
    one, other = (
        decide(network, packed_alike([(frames, q)])).policy.mean() for q in (question, -question)
    )
    assert np.abs(np.asarray(one - other)).max() > 1e-3


def test_frames_see_each_other_and_their_order(network, clips):
    frames, question = clips[2]
    forth = decide(network, packed_alike([(frames, question)])).policy.mean()
    back = decide(network, packed_alike([(frames[::-1], question)])).policy.mean()
    assert np.abs(np.asarray(forth[:4] - back[3::-1])).max() > 1e-4
    alone = decide(network, packed_alike([(frames[:1], question)])).policy.mean()
    assert abs(float(forth[0] - alone[0])) > 1e-4


@pytest.mark.slow
def test_a_healthy_start_is_the_same_for_all_frames_and_has_a_gradient(config, clips):
    packed = packed_alike(clips)
    norms = {}
    for init in ("healthy", "released"):
        network = AllocatorNetwork(dataclasses.replace(config, init=init), rngs=nnx.Rngs(0))
        graphdef, state = nnx.split(network)

        def score(state, graphdef=graphdef):
            policy = nnx.merge(graphdef, state)(packed).policy
            return policy.log_density(jnp.ones(policy.alpha.shape)).sum(), policy

        gradient, policy = jax.jit(jax.grad(score, has_aux=True))(state)
        kernel = nnx.to_pure_dict(gradient)["head"]["down"]["kernel"]
        norms[init] = float(np.abs(kernel).max())
        if init == "healthy":
            np.testing.assert_allclose(policy, 2.0, rtol=1e-5)
            np.testing.assert_allclose(network.scale(policy.mean()), 1.0, rtol=1e-5)
    assert norms["healthy"] > 1e-3
    assert norms["released"] < 1e-2 * norms["healthy"]


def test_a_gate_starts_closed_and_opens(config, clips):
    gated = AllocatorNetwork(
        dataclasses.replace(config, gated=True, init="released"), rngs=nnx.Rngs(0)
    )
    packed = packed_alike(clips)
    closed = decide(gated, packed).signals.variance  # of the trunk alone
    swapped = packed._replace(question=-packed.question)
    np.testing.assert_array_equal(closed, decide(gated, swapped).signals.variance)
    gated.layers[0].cross.gate.set_value(jnp.ones(()))
    assert np.abs(np.asarray(decide(gated, packed).signals.variance - closed)).max() > 1e-4


@pytest.mark.parametrize(("name", "millions"), [("released_v2", 43.7), ("paper", 64.7)])
def test_presets_have_the_published_size(name, millions):
    abstract = nnx.eval_shape(lambda: AllocatorNetwork(preset(name), rngs=nnx.Rngs(0)))
    assert num_parameters(abstract) / 1e6 == pytest.approx(millions, abs=0.05)


def test_flops_are_those_that_the_compiler_counts(config, clips):
    wide = dataclasses.replace(config, hidden_size=256, head_dim=64)  # products outweigh the rest
    network = AllocatorNetwork(wide, rngs=nnx.Rngs(0))
    cost = run.lower(*nnx.split(network), pack_features([clips[2]])).cost_analysis()
    counted = allocator_flops(wide, num_frames=4, question_tokens=5)
    assert counted == pytest.approx(cost["flops"], rel=0.1)


def test_what_a_frame_draws_does_not_depend_on_its_neighbours(network, clips):
    keys = jax.random.split(jax.random.key(5), 4)
    packed = packed_alike(clips)
    draws = decide(network, packed).policy.draw(frame_keys(keys, jnp.asarray(packed.segment_ids)))
    alone = packed_alike(clips[2:])
    single = decide(network, alone).policy.draw(
        frame_keys(jnp.roll(keys, -2), jnp.asarray(alone.segment_ids))
    )
    np.testing.assert_allclose(draws[4:8], single[:4], atol=1e-2)  # shapes differ by 2e-5
    assert len(set(np.asarray(draws[:8]).tolist())) == 8


def test_presets_are_named():
    assert set(PRESETS) == {"released_v2", "paper", "tiny"}
    with pytest.raises(ConfigError, match=r"no preset 'papper' \(did you mean paper\?\)"):
        preset("papper")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head_dim": 6}, "head_dim=6 is not a multiple of 4"),
        ({"num_layers": 0}, "num_layers=0 must be at least 1"),
        ({"min_scale": 2.0}, "min_scale=2.0 must be above 0 and below max_scale=1.8"),
        ({"init": "cold"}, "init='cold'; have healthy, released"),
    ],
)
def test_sizes_that_cannot_be_are_refused(config, change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(config, **change)


@pytest.mark.parametrize(
    ("frames", "question", "message"),
    [
        ((0, 64, 8), (3, 6), "clip 1 has 0 frames and 3 tokens"),
        ((2, 64, 8), (0, 6), "clip 1 has 2 frames and 0 tokens"),
        ((2, 49, 8), (3, 6), r"clip 1 has features \[2, 49, 8\] .* unlike those of clip 0"),
        ((2, 64), (3, 6), r"need \[t l d\] and \[q e\]"),
    ],
)
def test_features_that_do_not_fit_are_named(clips, frames, question, message):
    bad = np.zeros(frames, np.float32), np.zeros(question, np.float32)
    with pytest.raises(PackingError, match=message) as caught:
        pack_features([clips[0], bad])
    assert caught.value.item == 1


def test_more_than_the_buffers_hold_is_refused(clips):
    with pytest.raises(PackingError, match="8 frames, but the buffers hold 6"):
        pack_features(clips, max_frames=6)

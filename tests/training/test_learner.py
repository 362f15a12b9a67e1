"""A step: the same gradient however its tokens are cut up, and nothing touched beside it."""

import contextlib
import dataclasses
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mres_jax import testing
from mres_jax.config import MeshConfig
from mres_jax.data.assemble import assemble
from mres_jax.data.conversations import prompt_messages
from mres_jax.data.packing import pack
from mres_jax.data.types import Pack, Rung
from mres_jax.geometry import Size
from mres_jax.models.nativeres_llava.config import NativeResLlavaConfig
from mres_jax.models.nativeres_llava.model import NativeResLlava
from mres_jax.models.nativeres_llava.processor import make_spec
from mres_jax.resolution.policies import parse_policy
from mres_jax.training import meshes
from mres_jax.training.learner import Deferred, Learner, Share, Step, init_state, shares
from mres_jax.training.losses import next_token_sums

TOKENIZER = testing.tiny_tokenizer()
CONFIG = NativeResLlavaConfig(
    vision_config=testing.tiny_vision_config(hidden_size=24),
    text_config=testing.tiny_text_config(TOKENIZER),
    image_token_id=TOKENIZER.token_id("<|image_pad|>"),
)
ONE = Share(np.float32(1), np.float32(1))


class Toy(nnx.Module):
    """Predicts from the token alone: what a step needs of a learner, and no more."""

    def __init__(self):
        self.model = nnx.Embed(11, 6, rngs=nnx.Rngs(0))
        self.heads = nnx.Linear(6, 11, rngs=nnx.Rngs(1))

    def loss(self, pack: Pack, share: Share):
        hidden = jnp.tanh(self.model(pack.tokens).astype(jnp.float32))
        sums = next_token_sums(self.heads, hidden, pack.targets, pack.loss_mask, chunk=4)
        loss = share.token * sums.nll
        return loss, {"loss": loss, "accuracy": share.token * sums.right, "objective": loss}


def toy_pack(tokens: int, *, loss_tokens: int, seed: int = 0) -> Pack:
    rng = np.random.default_rng(seed)
    fields = dict.fromkeys(Pack._fields, np.zeros(0))
    fields |= {"tokens": rng.integers(0, 11, tokens), "targets": rng.integers(0, 11, tokens)}
    return Pack(**fields | {"loss_mask": np.arange(tokens) < loss_tokens})


def joined(one: Pack, other: Pack) -> Pack:
    return jax.tree.map(lambda a, b: np.concatenate([a, b]), one, other)


# Loops as users compile them, where `make test` has them compiled unfused, which rounds more.
FUSED = {"xla_cpu_use_fusion_emitters": True} if "emitters" in os.getenv("XLA_FLAGS", "") else None
# Keeps the gradient of the last step where a test can see it.
OPTIMIZER = optax.chain(optax.trace(0.0), optax.scale(-0.1))


def take_step(learner, *packs: Pack, average="token", **kwargs):
    """State, metrics and gradient."""
    graphdef, state = init_state(learner, OPTIMIZER, **kwargs)
    state, metrics = Step(graphdef, OPTIMIZER, average=average)(state, packs)
    return state, metrics, state.opt_state[0].trace


def assert_near(one, other, limit: float) -> None:
    """No value further apart than `limit` of the largest of its array."""
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=limit * float(np.abs(np.asarray(b)).max()))


def assert_same(one, other) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


SHORT, LONG = toy_pack(8, loss_tokens=3), toy_pack(24, loss_tokens=20, seed=1)


def test_packs_added_up_are_one_larger_pack():
    _, metrics, added = take_step(Toy(), SHORT, LONG)
    _, whole_metrics, whole = take_step(Toy(), joined(SHORT, LONG))
    assert_near(added, whole, 1e-6)  # sums of 23 float32 terms in two orders
    assert_near(metrics, whole_metrics, 1e-6)


def test_by_pack_a_short_one_counts_as_much_as_a_long_one():
    _, metrics, mean = take_step(Toy(), SHORT, LONG, average="pack")
    each = [take_step(Toy(), one) for one in (SHORT, LONG)]
    assert_near(mean, jax.tree.map(lambda a, b: (a + b) / 2, each[0][2], each[1][2]), 1e-6)
    assert metrics["loss"] == pytest.approx(
        float(each[0][1]["loss"] + each[1][1]["loss"]) / 2, rel=1e-6
    )
    _, _, by_token = take_step(Toy(), SHORT, LONG)
    with pytest.raises(AssertionError):
        assert_near(mean, by_token, 1e-2)


def test_a_metric_that_some_packs_lack_is_summed_over_the_others():
    graphdef, state = init_state(Toy(), OPTIMIZER)
    zero = jax.tree.map(jnp.zeros_like, nnx.to_pure_dict(state.params))
    parts = [{"objective": jnp.float32(1)}, {"objective": jnp.float32(2), "seen": jnp.float32(3)}]
    _, metrics = Step(graphdef, OPTIMIZER)._run_finish(state, zero, parts)
    assert (metrics["objective"], metrics["seen"]) == (3, 3)


def test_a_pack_without_a_loss_token_has_no_gradient():
    silent = toy_pack(8, loss_tokens=0)
    assert shares([silent])[0].token == 1
    _, metrics, gradient = take_step(Toy(), silent)
    assert metrics["loss"] == 0
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("mesh", [None, meshes.mesh_of(MeshConfig(), jax.devices()[:1])])
def test_packs_that_are_made_when_their_turn_comes_teach_the_same(mesh, monkeypatch):
    """Each is made while the one before is computed, and only then placed."""
    packs = [toy_pack(8, loss_tokens=n, seed=n) for n in (3, 5, 8)]
    graphdef, state = init_state(Toy(), OPTIMIZER)
    step, events = Step(graphdef, OPTIMIZER, mesh=mesh), []

    def later(i):
        def make():
            events.append(f"make {i}")
            return packs[i]

        return Deferred(loss_mask=packs[i].loss_mask, kind="toy", make=make)

    add, place = step._add, step._on_devices
    monkeypatch.setattr(step, "_add", lambda *given: (events.append("add"), add(*given))[1])
    monkeypatch.setattr(step, "_on_devices", lambda x: (events.append("place"), place(x))[1])
    with contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh):
        found = step(jax.tree.map(jnp.copy, state), [later(i) for i in range(3)])
        assert events == [e for i in range(3) for e in (f"make {i}", "place", "add")]
        assert_same(found, step(state, packs))


def test_packs_of_a_step_are_on_the_devices_of_a_mesh_one_group_at_a_time(monkeypatch):
    mesh = meshes.mesh_of(MeshConfig(), jax.devices()[:1])
    packs = [toy_pack(1_237, loss_tokens=n, seed=n) for n in (3, 5, 8)]
    graphdef, state = init_state(Toy(), OPTIMIZER)
    step, placed = Step(graphdef, OPTIMIZER, mesh=mesh), []

    def watched(*given):
        shapes = [x.shape for x in jax.live_arrays() if x.dtype == np.int32]
        placed.append(shapes.count((1, 1_237)))
        return add(*given)

    add = step._add
    monkeypatch.setattr(step, "_add", watched)
    with jax.set_mesh(mesh):
        step(state, packs)
    assert placed == [2, 2, 2]  # tokens and targets of the pack that is computed


def test_a_step_compiles_once_per_length_also_on_its_own_state():
    graphdef, state = init_state(Toy(), OPTIMIZER)
    step = Step(graphdef, OPTIMIZER)
    for packs in 2 * [SHORT, (SHORT, LONG, SHORT), LONG]:
        state, _ = step(state, packs)
    assert int(state.step) == 6
    sizes = [f._cache_size() for f in (step._whole, step._add, step._finish)]
    assert sizes == [2, 2, 1]


def test_what_is_frozen_has_no_gradient_and_no_state_and_stays():
    toy = Toy()
    before = np.array(toy.heads.kernel[...])
    state, metrics, gradient = take_step(toy, LONG, is_trained=nnx.PathContains("model"))
    assert list(gradient) == ["model"]
    norm = float(jnp.linalg.norm(gradient["model"]["embedding"]))
    assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-6)
    np.testing.assert_array_equal(state.frozen["heads"]["kernel"][...], before)


def test_parameters_may_be_bfloat16_but_never_what_adds_up_over_steps():
    optimizer = optax.adamw(1e-1)
    graphdef, state = init_state(Toy(), optimizer, param_dtype=jnp.bfloat16)
    before = np.array(state.params["model"]["embedding"][...])
    step = Step(graphdef, optimizer)
    for packs in (LONG, LONG, (SHORT, LONG)):
        state, _ = step(state, packs)
    embedding = state.params["model"]["embedding"][...]
    assert embedding.dtype == jnp.bfloat16
    assert (embedding != before).any()
    assert {str(x.dtype) for x in jax.tree.leaves(state.opt_state)} == {"float32", "int32"}
    assert state.params["heads"]["kernel"][...].dtype == jnp.float32
    assert step._whole._cache_size() == 1


@pytest.mark.parametrize(
    ("objective", "spoilt"), [(jnp.nan, 0.0), (jnp.inf, 0.0), (1.0, jnp.nan), (1.0, jnp.inf)]
)
def test_a_step_that_is_not_finite_leaves_parameters_and_optimiser_as_they_were(objective, spoilt):
    optimizer = optax.adamw(1e-1)
    graphdef, state = init_state(Toy(), optimizer)
    update = jax.jit(Step(graphdef, optimizer).update)
    good = jax.tree.map(jnp.ones_like, nnx.to_pure_dict(state.params))
    bad = jax.tree.map(lambda x: x, good)
    bad["model"]["embedding"] = good["model"]["embedding"].at[2, 3].add(spoilt)
    state, _ = update(state, good, {"objective": jnp.float32(1)})
    after, metrics = update(state, bad, {"objective": jnp.float32(objective)})
    assert_same(after.params, state.params)
    assert_same(after.opt_state, state.opt_state)
    assert (int(after.step), int(after.skipped), int(metrics["skipped_in_row"])) == (2, 1, 1)
    again, metrics = update(after, bad, {"objective": jnp.float32(objective)})
    assert (int(again.skipped), int(metrics["skipped_in_row"])) == (2, 2)
    later, metrics = update(again, good, {"objective": jnp.float32(1)})
    straight, _ = update(state, good, {"objective": jnp.float32(1)})
    assert_same(later.params, straight.params)
    assert (int(later.step), int(later.skipped), int(metrics["skipped_in_row"])) == (4, 2, 0)


def tiny_learner(
    *, chunk: int | None = None, text: dict | None = None, labels: dict | None = None, **kwargs
) -> Learner:
    """An abstract learner: shapes, no values."""
    config = dataclasses.replace(
        CONFIG, text_config=dataclasses.replace(CONFIG.text_config, **text or {})
    )

    def make() -> Learner:
        model = NativeResLlava(config, rngs=nnx.Rngs(0), **kwargs)
        return Learner(
            model,
            patch_classes=labels or {},
            auxiliary_weight=1.0,
            loss_chunk=chunk,
            rngs=nnx.Rngs(0),
        )

    return nnx.eval_shape(make)


def tiny_pack() -> Pack:
    spec = make_spec(CONFIG, TOKENIZER.token_id, preprocessor={"min_pixels": 64})
    image = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    views = parse_policy("native")([Size(24, 40)], "", spec)
    examples = [
        assemble(
            [image],
            views,
            prompt_messages("what is the total", num_images=1, answer=answer),
            spec,
            TOKENIZER,
            label_mask="answer",
        )
        for answer in ("blue", "the invoice is red and the total is blue")
    ]
    return pack(examples, Rung(max_patches=128, max_tokens=160, max_views=4, max_examples=2))


def gradient_of(learner: Learner, packed: Pack):
    """Gradient and metrics with parameters that every learner of these sizes shares."""
    learner = testing.fill(lambda: learner, scale=0.3)
    graphdef, params = nnx.split(learner)
    step = Step(graphdef, OPTIMIZER)
    share = shares([packed])[0]
    gradients = jax.jit(step.gradients, compiler_options=FUSED)
    return jax.device_get(gradients(params, nnx.State({}), packed, share))


@pytest.fixture(scope="module")
def plain():
    """The step's gradient and metrics with all scores at once, float32."""
    return gradient_of(tiny_learner(), tiny_pack())


def apart(one, other) -> float:
    """Largest difference, as a share of the largest value of the layer that it belongs to.

    By layer, since the gradient of a bias on keys cancels to rounding: softmax does not see it.
    """
    difference, size = {}, {}
    flat = jax.tree_util.tree_flatten_with_path(other)[0]
    for x, (path, y) in zip(jax.tree.leaves(one), flat, strict=True):
        layer = path[:-1]
        x, y = np.asarray(x), np.asarray(y)
        difference[layer] = max(difference.get(layer, 0.0), float(np.abs(x - y).max()))
        size[layer] = max(size.get(layer, 0.0), float(np.abs(y).max()))
    return max(difference[layer] / size[layer] for layer in size)


@pytest.mark.slow
def test_a_model_s_loss_in_chunks_has_the_gradients_of_the_plain_one(plain):
    gradient, metrics = plain
    cut, cut_metrics = gradient_of(tiny_learner(chunk=7), tiny_pack())
    difference = jax.tree.map(np.subtract, cut, gradient)
    off = float(optax.tree.norm(difference) / optax.tree.norm(gradient))
    print(f"gradients {apart(cut, gradient):.2e} of their layer's largest apart, {off:.2e} by norm")
    # one rounding of float32 is 6e-8 of a value; sums in another order send a few through the model
    assert apart(cut, gradient) < 1e-6
    assert_near(cut_metrics, metrics, 1e-6)


@pytest.mark.slow
def test_bfloat16_computes_with_float32_parameters_and_losses(plain):
    gradient, metrics = plain
    learner = tiny_learner(chunk=32, dtype=jnp.bfloat16, remat="full")
    graphdef, params = nnx.split(learner)
    step = Step(graphdef, OPTIMIZER).gradients
    traced = str(jax.make_jaxpr(step)(params, nnx.State({}), tiny_pack(), ONE))
    assert re.search(r":bf16\[[\d,]+\] = dot_general", traced)
    assert not re.search(r":bf16\[[\d,]*\] = (log|rsqrt|reduce_max)\b", traced)
    scores = rf"\[32,{CONFIG.text_config.vocab_size}\] = exp\b"
    assert re.search("f32" + scores, traced)
    assert not re.search("bf16" + scores, traced)
    rounded, rounded_metrics = gradient_of(learner, tiny_pack())
    assert {x.dtype for x in jax.tree.leaves((rounded, rounded_metrics))} == {jnp.dtype("float32")}
    off = abs(float(rounded_metrics["loss"] / metrics["loss"]) - 1)
    difference = jax.tree.map(np.subtract, rounded, gradient)
    norm = float(optax.tree.norm(difference) / optax.tree.norm(gradient))
    print(f"bfloat16: loss {off:.1e} apart, gradient {norm:.1e} by norm")
    assert off < 2**-8  # no more than one rounding of a bfloat16 value
    assert norm < 0.05  # a dozen roundings in a row, forward and backward


def test_a_rung_for_text_alone_trains_the_text():
    graphdef, params = nnx.split(tiny_learner(labels={"char": 3}))
    step = Step(graphdef, OPTIMIZER)
    text = abstract_pack(0, 160)
    gradient, metrics = jax.eval_shape(step.gradients, params, nnx.State({}), text, ONE)
    assert jax.tree.structure(gradient) == jax.tree.structure(nnx.to_pure_dict(params))
    assert "patch_char" not in metrics


def abstract_pack(patches: int, tokens: int) -> Pack:
    packed = tiny_pack()
    lengths = {len(packed.patches): patches, len(packed.tokens): tokens}

    def shape(x):
        return jax.ShapeDtypeStruct([lengths.get(n, n) for n in x.shape], x.dtype)

    return jax.tree.map(shape, packed)


@pytest.mark.parametrize(
    "tied",
    [pytest.param(False, id="untied", marks=pytest.mark.slow), pytest.param(True, id="tied")],
)
def test_no_array_of_tokens_by_vocabulary_exists(tied):
    """Forward and backward of 4,096 tokens over 151,936 words, compiled and not run."""
    tokens, vocabulary, chunk = 4_096, 151_936, 256
    text = {"vocab_size": vocabulary, "hidden_size": 64, "tie_word_embeddings": tied}

    def temporaries(chunk: int | None) -> int:
        graphdef, params = nnx.split(tiny_learner(chunk=chunk, text=text))
        gradients = jax.jit(Step(graphdef, OPTIMIZER).gradients)
        lowered = gradients.lower(params, nnx.State({}), abstract_pack(128, tokens), ONE)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    scores = tokens * vocabulary * 4
    cut = temporaries(chunk)
    print(f"{cut / 1e6:.0f} MB of temporaries; all scores are {scores / 1e6:.0f} MB")
    # scores of a chunk, twice, and the head's gradient
    assert cut < 3 * chunk * vocabulary * 4 < scores / 4
    if not tied:
        assert temporaries(None) > 2 * scores  # what the limit keeps out

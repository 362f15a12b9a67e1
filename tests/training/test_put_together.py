"""A model put together from a tower of one release and the decoder of another."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mres_jax import testing
from mres_jax.errors import CheckpointError, ConfigError
from mres_jax.models.key_table import KeyTable
from mres_jax.models.nativeres_llava.config import NativeResLlavaConfig
from mres_jax.models.qwen2.convert import KEYS, TIED
from mres_jax.models.registry import family_of
from mres_jax.models.weights import write_weights
from mres_jax.training.learner import Learner, TrainState, init_state
from mres_jax.training.warm_start import restore_params


def filled(config, seed: int):
    """Random parameters of a model, by part."""
    draw = np.random.default_rng(seed)
    state = nnx.state(family_of(config).skeleton(config), nnx.Param)
    return jax.tree.map(lambda x: jnp.asarray(draw.normal(size=x.shape), x.dtype), state)


@pytest.fixture(scope="module")
def config() -> NativeResLlavaConfig:
    tokenizer = testing.tiny_tokenizer()
    return NativeResLlavaConfig(
        vision_config=testing.tiny_vision_config(hidden_size=32),
        text_config=testing.tiny_text_config(tokenizer),
        image_token_id=tokenizer.token_id("<|image_pad|>"),
    )


@pytest.fixture(scope="module")
def sources(config, tmp_path_factory) -> dict[str, str]:
    """A Qwen2-VL and a Qwen2 on disk."""
    tower, text = (tmp_path_factory.mktemp(name) for name in ("tower", "text"))
    whole = testing.tiny_qwen2_vl().model.config
    family = family_of(whole)
    (tower / "config.json").write_text(json.dumps(family.config_to_hf(whole)))
    write_weights(filled(whole, 1), family.key_table(whole), tower)
    (text / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    decoder = nnx.State({"text": filled(config, 2)["text"]})
    write_weights(decoder, KeyTable(keys=KEYS, tied=TIED), text)
    return {"vision": str(tower), "text": str(text)}


@pytest.fixture
def state(config) -> TrainState:
    """As a first stage has it: the projector trained, the rest frozen in bfloat16."""
    skeleton = family_of(config).skeleton(config)
    nnx.update(skeleton, filled(config, 0))
    learner = Learner(skeleton, patch_classes={}, auxiliary_weight=0.0, rngs=nnx.Rngs(0))
    _, state = init_state(
        learner,
        optax.identity(),
        is_trained=lambda path, _: "projector" in path,
        frozen_dtype=jnp.bfloat16,
    )
    return state


def arrays(tree, dtype=None) -> list[np.ndarray]:
    return [np.asarray(x if dtype is None else x.astype(dtype)) for x in jax.tree.leaves(tree)]


def test_each_part_comes_from_its_own_model_and_the_rest_stays(config, sources, state):
    before = arrays(state.params)
    filled_state = restore_params(sources, state, config=config)
    for a, b in zip(before, arrays(filled_state.params), strict=True):
        np.testing.assert_array_equal(a, b)
    model = filled_state.frozen["model"]
    whole = testing.tiny_qwen2_vl().model.config
    for part, source in {"vision": filled(whole, 1), "text": filled(config, 2)}.items():
        wanted = arrays(source[part], jnp.bfloat16)
        for a, b in zip(wanted, arrays(model[part]), strict=True):
            assert b.dtype == jnp.bfloat16
            np.testing.assert_array_equal(a, b)


def test_arrays_read_and_arrays_made_are_bound_alike(config, sources, state):
    """Else the second step compiles again."""
    restored = restore_params(sources, state, config=config)
    assert all(x.committed for x in jax.tree.leaves(restored))


def test_a_part_that_the_files_do_not_have_is_named(config, sources, state):
    with pytest.raises(CheckpointError, match=r"text0: such a model has no vision\."):
        restore_params({"vision": sources["text"]}, state, config=config)
    with pytest.raises(ConfigError, match=r"init: 'visoin' fits no parameter.*'vision'"):
        restore_params({"visoin": sources["vision"]}, state, config=config)

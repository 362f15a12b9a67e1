"""Meshes in use, without devices."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.sharding import AbstractMesh, AxisType

from mres_jax import nn, testing
from mres_jax.errors import ConfigError
from mres_jax.models.registry import family_of


def test_ranks_are_counted_over_data_and_fsdp():
    assert nn.num_ranks() == 1
    mesh = AbstractMesh((2, 3, 4), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    with jax.sharding.use_abstract_mesh(mesh):
        assert nn.num_ranks() == 6


def test_explicit_axes_are_refused_with_the_call_that_makes_others():
    types = (AxisType.Auto, AxisType.Explicit)
    mesh = AbstractMesh((2, 4), ("data", "tensor"), axis_types=types)
    said = (
        r"mesh: the axes tensor are of type Explicit.*jax\.make_mesh\(\(2, 4\), \('data', 'tensor'"
    )
    with jax.sharding.use_abstract_mesh(mesh), pytest.raises(ConfigError, match=said):
        nn.num_ranks()


def test_without_fsdp_a_model_is_gathered_already():
    model = testing.tiny_qwen2_vl().model
    assert nn.gather_once(model) is model


def test_what_is_gathered_once_is_whole_along_fsdp_in_the_type_of_its_products():
    """Norms stay in float32, and so does the program's input."""

    def make() -> nnx.Module:
        model = testing.tiny_qwen2_vl().model
        return family_of(model.config).Model(model.config, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))

    model = nnx.eval_shape(make)
    nn.add_lora(model.text, ("layers.attn.q",), rank=4, scale=1.0, rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(model)
    mesh = AbstractMesh((1, 2, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    before = nn.state_shardings(state, mesh)
    after = nn.state_shardings(state, mesh, gathered=True)
    assert any("fsdp" in where.spec for where in jax.tree.leaves(before))
    assert any("tensor" in where.spec for where in jax.tree.leaves(after))
    assert all("fsdp" not in where.spec for where in jax.tree.leaves(after))
    out = jax.eval_shape(nn.gather_program(graphdef, state, mesh), state)
    kinds = {}
    for path, x in jax.tree_util.tree_leaves_with_path(out):
        names = [str(entry.key) for entry in path if hasattr(entry, "key")]
        kinds[".".join(names)] = x.dtype.name
    for name in ("kernel", "bias", "lora_a", "lora_b"):
        assert kinds[f"text.layers.attn.q.{name}"] == "bfloat16"
    assert kinds["text.embed.embedding"] == "bfloat16"
    assert kinds["text.norm.scale"] == "float32"
    assert {x.dtype.name for x in jax.tree.leaves(state)} == {"float32"}

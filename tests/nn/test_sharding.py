"""Meshes in use, without devices."""

import jax
import pytest
from jax.sharding import AbstractMesh, AxisType

from mres_jax import nn
from mres_jax.errors import ConfigError


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

"""The climate of every test: CPU, no silent promotion, every annotation checked."""
# ruff: noqa: E402

import importlib.metadata
import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # read when jax is imported, so it comes first

# `make test` compiles for quickness of compiling. Loops without XLA's emitters of fusions compile
# in half the time; jaxlib 0.11 has no others, and would end with an unknown flag.
JAXLIB = tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2]))
if "JAX_DISABLE_MOST_OPTIMIZATIONS" in os.environ and JAXLIB < (0, 11):
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_use_fusion_emitters=false".strip()

from jaxtyping import install_import_hook  # imports no jax

# Annotations are checked in tests only: the library pays nothing at run time. The hook must stand
# before the first import of what it checks. An int where a float is asked for is fine, as it is
# for static type checkers.
install_import_hook(
    ["mres_jax", "mres_kernels"],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)

import hypothesis
import jax
import pytest
from flax import nnx

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# The same examples on every machine; no deadline, since a first call may compile.
hypothesis.settings.register_profile("house", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("house")


MAPS = pathlib.Path("/proc/self/maps")
MOST_MAPS = 20_000  # Linux gives a process 65,530; jaxlib ends with a fault of memory beyond


@pytest.fixture(autouse=True, scope="module")
def few_maps():
    """Drops compiled programs behind a module where many lie about: each takes some six maps."""
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()


@pytest.fixture
def rngs() -> nnx.Rngs:
    """Seeded streams for a module under test."""
    return nnx.Rngs(0)

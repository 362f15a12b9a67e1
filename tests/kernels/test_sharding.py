"""Heads over one axis of a mesh and packs over the other, on four devices made of one processor."""

import pathlib
import subprocess
import sys

import pytest

KERNELS = pathlib.Path(__file__).parents[2] / "kernels"
PROGRAM = """
import functools
import importlib
import sys
sys.path.insert(0, sys.argv[1])
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from mres_kernels import make_plan
from mres_kernels.varlen_attention import xla

call = xla.varlen_attention
if sys.argv[2] != "xla":
    module = importlib.import_module("mres_kernels.varlen_attention." + sys.argv[2])
    call = functools.partial(module.varlen_attention, interpret=True)

def step(q, k, v, ids, d_out):
    plan = make_plan(ids)
    out, pull = jax.vjp(lambda *x: call(*x, plan, scale=0.3)[0], q, k, v)
    return out, *pull(d_out)

draw = np.random.default_rng(0)
q, k, v, d_out = (draw.standard_normal((2, 128, n, 8), np.float32) for n in (4, 2, 2, 4))
ids = np.stack([np.repeat([1, 2, 0], n) for n in ([50, 70, 8], [90, 0, 38])]).astype(np.int32)
alone = [jax.jit(step)(*row) for row in zip(q, k, v, ids, d_out)]
mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
arrays = P("data", None, "model")
both = jax.jit(
    jax.shard_map(
        jax.vmap(step),
        mesh=mesh,
        in_specs=(arrays, arrays, arrays, P("data"), arrays),
        out_specs=arrays,
        check_vma=False,
    )
)
for i, together in enumerate(zip(*both(q, k, v, ids, d_out))):
    for x, y in zip(together, alone[i], strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=3e-6)
print("done")
"""


@pytest.mark.parametrize(
    "implementation",
    ["xla", *(pytest.param(n, marks=pytest.mark.slow) for n in ("pallas_tpu", "pallas_triton"))],
)
def test_shards_are_the_whole(implementation):
    command = [sys.executable, "-c", PROGRAM, str(KERNELS), implementation]
    settings = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    run = subprocess.run(command, capture_output=True, text=True, env=settings)
    assert run.stdout.strip() == "done", run.stderr[-3000:]

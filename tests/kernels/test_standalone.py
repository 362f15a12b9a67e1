"""The kernels where nothing else is installed."""

import importlib.util
import pathlib
import subprocess
import sys

KERNELS = pathlib.Path(__file__).parents[2] / "kernels"
# jax, numpy and absl, with what they themselves cannot be imported without.
PRESENT = ("jax", "jaxlib", "numpy", "absl", "ml_dtypes", "opt_einsum", "scipy")
PROGRAM = """
import sys
sys.path[1:1] = sys.argv[1:]
import jax, numpy as np
from mres_kernels import make_plan, varlen_attention
assert not {"jaxtyping", "flax", "einops", "mres_jax"} & set(sys.modules)
plan = make_plan(np.repeat([1, 2, 0], [20, 10, 2]).astype(np.int32))
x = jax.random.normal(jax.random.key(0), (32, 2, 8))
out, pull = jax.vjp(lambda q: varlen_attention(q, x, x, plan), x)
assert np.isfinite(out).all() and np.isfinite(pull(out)[0]).all()
from mres_kernels.varlen_attention import pallas_tpu
x, plan = x[:1].repeat(128, 0), make_plan(length=128)
out, _ = pallas_tpu.varlen_attention(x, x, x, plan, scale=1.0, interpret=True)
assert np.isfinite(out).all()
print("done")
"""


def test_kernels_run_with_jax_numpy_and_absl_alone(tmp_path):
    for name in PRESENT:
        spec = importlib.util.find_spec(name)
        assert spec is not None, name
        package = pathlib.Path(str(spec.origin)).parent
        (tmp_path / name).symlink_to(package)
        if (libraries := package.with_name(f"{name}.libs")).exists():
            (tmp_path / libraries.name).symlink_to(libraries)
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, str(KERNELS), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, env={"JAX_PLATFORMS": "cpu"})
    assert run.stdout.strip() == "done", run.stderr

"""What suits the device that a model runs on: its dtype, and on a CPU more than that.

Models are written for accelerators: layers stacked and scanned, products rounded by the hardware.
On a CPU the weights of a decoder's layers stand apart, bfloat16 products are asked for in another
way, and float32 ones of another library. None of it changes a result by more than rounding.
"""

import functools
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from mres_jax import nn, ops
from mres_jax.models.checkpoint_io import stored_arrays
from mres_jax.models.manifest import FILE
from mres_jax.models.registry import checkpoint_directory

# XLA's newer library for products (YNNPACK) is behind Eigen in float32 where rows are many, 180
# GFLOP/s against 215 on two cores of Zen 4, or one, 32 GB/s of weights against 35. It is ahead for
# 2 to 128 of them, most where a tied table of tokens is multiplied with (by 4 to 14 times), and far
# ahead in bfloat16.
NO_YNN = {"xla_cpu_experimental_ynn_fusion_type": ""}


SMALL = 100e6  # bytes of weights
FREE_SHARE = 0.7  # of the free memory that weights may take


def suitable_dtype(directory: str | os.PathLike[str], *, exact: bool = False) -> DTypeLike:
    """The dtype that a model is best loaded in: float32 on a CPU and for small models, where it
    fits; bfloat16 otherwise.

    Args:
      directory: the model's.
      exact: float32 on accelerators too, where memory allows.
    """
    stored = stored_bytes(directory)  # of bfloat16, as released weights are
    fits = 2 * stored < FREE_SHARE * (free_memory() or float("inf"))
    wanted = exact or jax.default_backend() == "cpu" or stored < SMALL
    return jnp.float32 if wanted and fits else jnp.bfloat16


def free_memory() -> float | None:
    """Returns bytes of memory that a new process can have, or None where nobody tells."""
    try:
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    values = dict(line.split(":", 1) for line in lines)
    return 1024.0 * int(values["MemAvailable"].split()[0]) if "MemAvailable" in values else None


def stored_bytes(directory: str | os.PathLike[str]) -> int:
    """Returns the size of a model's weights as they are stored, of a run those of its newest step.

    0 where that takes a network to know, or where no model is.

    Raises:
      CheckpointError: a checkpoint of ours that cannot be read.
    """
    path = pathlib.Path(directory)
    if files := list(path.glob("*.safetensors")):
        return sum(file.stat().st_size for file in files)
    step = checkpoint_directory(path) if path.is_dir() else None
    if step is None or not (step / FILE).exists():
        return 0
    arrays = stored_arrays(step).get("model", {})
    return sum(math.prod(shape) * jnp.dtype(dtype).itemsize for shape, dtype in arrays.values())


def is_on_cpu(model: nnx.Module) -> bool:
    """Whether all parameters are on one CPU device."""
    devices = {device for x in jax.tree.leaves(nnx.state(model)) for device in x.devices()}
    return len(devices) == 1 and devices.pop().platform == "cpu"


def with_suitable_products(model: Any) -> Any:
    """The model with products as its dtype needs them; parameters are shared."""
    if jnp.dtype(model.text.embed.dtype) != jnp.bfloat16:
        return model
    return with_float32_sums(model)


def with_float32_sums(model: Any) -> Any:
    """The model or layer with products that ask for float32 sums; parameters are shared."""
    model = nnx.clone(model)
    for _, layer in nnx.iter_modules(model):
        if isinstance(layer, nnx.Linear | nn.Int8Linear | nn.Embed):
            layer.dot_general = ops.dot_general_float32_sums
    return model


def with_own_layers(model: Any) -> Any:
    """The model with a decoder whose layers stand apart; parameters are shared."""
    model = nnx.clone(model)
    model.text.layers = nn.unstack_layers(model.text.layers)
    return model


def compiler_options(model: Any) -> Mapping[str, Any]:
    """Options of `jax.jit` for a model on a CPU, where products are of many rows or of one."""
    wide = jnp.dtype(model.text.embed.dtype) == jnp.float32
    return NO_YNN if wide and _accepted(next(iter(NO_YNN))) else {}


@functools.cache
def _accepted(name: str) -> bool:
    """Whether this version of XLA has an option."""
    try:
        jax.jit(lambda: jnp.zeros(()), compiler_options={name: ""}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True

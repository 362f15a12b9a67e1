"""Low-rank adapters on linear layers, single or stacked.

Axes: i input width, o output width, r rank.
"""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

LORA_FACTORS = ("lora_a", "lora_b")


class LoRAParam(nnx.Param):
    """A factor of an adapter."""


class LoRALinear(nnx.Linear):
    """`x W + b + scale (x A) B`: a linear layer whose update has few rows.

    `B` begins as zeros, so a fresh adapter changes no output. The layer keeps its parameters under
    their names, with `lora_a` and `lora_b` beside them. The factors are float32; products run in
    the layer's `dtype`.

    Reference:
      Hu et al., 2021, "LoRA", arXiv:2106.09685, section 4.1.
    """

    def __init__(self, linear: nnx.Linear, *, rank: int, scale: float, rngs: nnx.Rngs):
        """Takes over the parameters of `linear`, whose kernel may have leading axes of layers."""
        _take_over(self, linear)
        *layers, in_size, out_size = linear.kernel.shape
        init = nnx.initializers.lecun_normal(batch_axis=tuple(range(len(layers))))
        self.scale = scale
        self.lora_a = LoRAParam(init(rngs.params(), (*layers, in_size, rank), jnp.float32))
        self.lora_b = LoRAParam(jnp.zeros((*layers, rank, out_size), jnp.float32))

    def __call__(
        self, inputs: Float[Array, "*b i"], out_sharding: Any = None
    ) -> Float[Array, "*b o"]:
        factors = (inputs, self.lora_a[...], self.lora_b[...])
        x, a, b = self.promote_dtype(factors, dtype=self.dtype)
        return super().__call__(inputs, out_sharding) + self.scale * ((x @ a) @ b)


def linear_layers(model: nnx.Module) -> dict[str, nnx.Linear]:
    """Linear layers by dotted name; a stack of them is one."""
    found = {}
    for path, module in nnx.iter_modules(model):
        if isinstance(module, nnx.Linear):
            found[".".join(map(str, path))] = module
    return found


def add_lora(
    model: nnx.Module, names: Collection[str], *, rank: int, scale: float, rngs: nnx.Rngs
) -> None:
    """Puts fresh adapters on linear layers, in place.

    Args:
      model: what holds them.
      names: as in `linear_layers`.
      rank: columns of `A`, rows of `B`.
      scale: factor of the product, `alpha / rank`.
      rngs: source of `A`.
    """
    layers = linear_layers(model)
    for name in names:
        replace_linear(model, name, LoRALinear(layers[name], rank=rank, scale=scale, rngs=rngs))


def merge_lora(model: nnx.Module) -> Any:
    """Returns the model without adapters: each kernel with its product added, float32.

    The model itself is left as it is; all other arrays are shared.
    """
    merged = nnx.clone(model)
    fold_lora(merged)
    return merged


def fold_lora(model: nnx.Module) -> dict[str, LoRALinear]:
    """Merges adapters in place; what it returns is what `unfold_lora` needs to undo it.

    Each kernel becomes the float32 sum with its product.
    """
    layers = {n: x for n, x in linear_layers(model).items() if isinstance(x, LoRALinear)}
    for name, layer in layers.items():
        plain = nnx.eval_shape(lambda: nnx.Linear(1, 1, use_bias=False, rngs=nnx.Rngs(0)))
        _take_over(plain, layer)
        a, b = layer.lora_a[...], layer.lora_b[...]
        plain.kernel = nnx.Param(merge_kernel(layer.kernel[...], a, b, layer.scale))
        replace_linear(model, name, plain)
    return layers


def unfold_lora(model: nnx.Module, layers: Mapping[str, LoRALinear]) -> None:
    """Puts folded adapters back, in place: on the kernels that were there before, bit for bit.

    Nothing is subtracted, so nothing is rounded.
    """
    for name, layer in layers.items():
        replace_linear(model, name, layer)


def merge_kernel(
    kernel: Float[Array, "*l i o"],
    a: Float[Array, "*l i r"],
    b: Float[Array, "*l r o"],
    scale: float,
) -> Float[Array, "*l i o"]:
    """`W + scale A B`, float32: in bfloat16 most of a small product would be lost."""
    product = jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
    return kernel.astype(jnp.float32) + scale * product.astype(jnp.float32)


def _take_over(layer: nnx.Linear, source: nnx.Linear) -> None:
    """Gives `layer` what makes `source` a linear layer."""
    for name, value in vars(source).items():
        if not name.startswith("_") and name not in (*LORA_FACTORS, "scale"):
            setattr(layer, name, value)


def replace_linear(model: nnx.Module, name: str, layer: nnx.Module) -> None:
    """Puts a layer in the place of the linear one of that name, in place."""
    *path, last = name.split(".")
    parent: Any = model
    for key in path:
        parent = parent[int(key)] if isinstance(parent, nnx.List) else getattr(parent, key)
    setattr(parent, last, layer)

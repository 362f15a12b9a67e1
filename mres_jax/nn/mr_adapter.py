"""Mixture-of-resolution adapters: what one pathway of a dual tower tells the other.

Axes: n canvases, y rows, x columns, z channels of the map that is told; b, a and w of the one that
tells it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from mres_jax.nn.canvas import DepthwiseConv, Map, Mask, Resize, masked_mean

Structure = Literal["mlp", "conv"]

GATES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "hard_sigmoid": jax.nn.hard_sigmoid,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MRAdapterOptions:
    """Choices of an adapter; the defaults are those of the released code.

    Attributes:
      source_block: what maps the pathway that tells, `mlp` or `conv`.
      target_block: what maps the pathway that is told.
      gate: `tanh`, `sigmoid` or `hard_sigmoid`.
      gate_width: `scalar`, one number per view (released code), or `channel`, one per channel
        (the article, eq. 5: W2 maps to the width of the features).
      gate_input: `residual`, the mean of the told pathway after its own block was added (released
        code), or `mapped`, of the block's output alone (the article).
      fusion: `sum`, gated features are added; or `concat`, both are mixed by a linear layer.

    Reference:
      Luo et al., 2024, "Feast Your Eyes", arXiv:2403.03003, section 3.3, eq. 4 to 6, and table 3;
      luogen1996/LLaVA-HR.
    """

    source_block: Structure = "mlp"
    target_block: Structure = "conv"
    gate: str = "tanh"
    gate_width: Literal["scalar", "channel"] = "scalar"
    gate_input: Literal["residual", "mapped"] = "residual"
    fusion: Literal["sum", "concat"] = "sum"

    def __post_init__(self):
        for name, have in _CHOICES.items():
            value = getattr(self, name)
            if value not in have:
                raise ValueError(f"MRAdapter: {name}={value!r}; have {', '.join(have)}.")


_CHOICES = {
    "source_block": ("mlp", "conv"),
    "target_block": ("mlp", "conv"),
    "gate": tuple(GATES),
    "gate_width": ("scalar", "channel"),
    "gate_input": ("residual", "mapped"),
    "fusion": ("sum", "concat"),
}


class MRAdapter(nnx.Module):
    """Adds to `target` a block of its own and, gated by both, a block of `source`.

    A fresh adapter changes nothing, bit for bit: what ends in the sum begins as zeros. Gradients
    reach the last layers in the first step and all others in the second.
    """

    def __init__(
        self,
        *,
        target_size: int,
        source_size: int,
        options: MRAdapterOptions,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.options = options
        mixes = options.fusion == "concat"
        size = target_size
        self.source = _Block(
            options.source_block, source_size, size, zero=not mixes, dtype=dtype, rngs=rngs
        )
        self.target = _Block(options.target_block, size, size, zero=True, dtype=dtype, rngs=rngs)
        width = size if options.gate_width == "channel" else 1
        self.gate_up = _gate_linear(2 * size, size // 2, dtype, rngs)
        self.gate_down = _gate_linear(size // 2, width, dtype, rngs)
        if mixes:
            self.mix = _linear(2 * size, size, dtype, rngs, init=nnx.initializers.zeros_init())

    def __call__(
        self,
        target: Map,
        source: Float[Array, "n b a w"],
        *,
        target_mask: Mask,
        source_mask: Bool[Array, "n b a"],
        align: Resize | None = None,
    ) -> Map:
        """Returns `target`, told by `source`.

        Args:
          target: what is changed.
          source: what tells it, on the same canvases.
          target_mask: cells that show something.
          source_mask: likewise.
          align: brings the source to the target's cells; None where they are the same.
        """
        options = self.options
        told = self.source(source, source_mask)
        if align is not None:
            told = align(told)
        own = self.target(target, target_mask)
        out = target + own
        seen = out if options.gate_input == "residual" else own
        gate = self._gate(masked_mean(seen, target_mask), masked_mean(told, target_mask))
        told = told * gate.astype(told.dtype)[:, None, None]
        if options.fusion == "sum":
            return out + told
        return out + self.mix(jnp.concatenate([out, told], axis=-1))

    def _gate(self, *means: Float[Array, "n z"]) -> Float[Array, "n w"]:
        mean = jnp.concatenate(means, axis=-1).astype(self.gate_up.dtype)
        hidden = jax.nn.gelu(self.gate_up(mean), approximate=False)
        return GATES[self.options.gate](self.gate_down(hidden))


class _Block(nnx.Module):
    """A mapping within the input's width, an exact GELU, and a linear layer to another width."""

    def __init__(
        self,
        structure: Structure,
        in_size: int,
        out_size: int,
        *,
        zero: bool,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        xavier = nnx.initializers.xavier_uniform()
        if structure == "conv":
            self.first = DepthwiseConv(in_size, dtype=dtype, rngs=rngs)
        else:
            self.first = _linear(in_size, in_size, dtype, rngs, init=xavier)
        last = nnx.initializers.zeros_init() if zero else xavier
        self.last = _linear(in_size, out_size, dtype, rngs, init=last)

    def __call__(self, x: Map, mask: Mask) -> Float[Array, "n y x w"]:
        first = self.first
        x = first(x, mask) if isinstance(first, DepthwiseConv) else first(x)
        return self.last(jax.nn.gelu(x, approximate=False))


# torch's for linear layers: uniform, as wide as 1 / sqrt(inputs), biases too
_TORCH = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def _gate_linear(in_size: int, out_size: int, dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.Linear:
    """As torch begins: with biases of zero the article's gate would stay shut at first."""
    bound = in_size**-0.5

    def draw(key: jax.Array, shape: tuple[int, ...], kind: DTypeLike, **_: Any) -> jax.Array:
        return jax.random.uniform(key, shape, kind, -bound, bound)

    return nnx.Linear(in_size, out_size, dtype=dtype, kernel_init=_TORCH, bias_init=draw, rngs=rngs)


def _linear(
    in_size: int, out_size: int, dtype: DTypeLike, rngs: nnx.Rngs, *, init: nnx.Initializer
) -> nnx.Linear:
    return nnx.Linear(in_size, out_size, dtype=dtype, kernel_init=init, rngs=rngs)

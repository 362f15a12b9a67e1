"""Token embeddings.

Axes: e text width, V vocabulary.
"""

from typing import Any

from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from mres_jax import ops
from mres_jax.nn.sharding import mesh_sizes, param_spec


class Embed(nnx.Embed):
    """`nnx.Embed` whose scores, like those of `nnx.Linear`, come from its `dot_general`."""

    def __init__(self, *args: Any, dot_general: Any = lax.dot_general, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.dot_general = dot_general

    def __call__(self, inputs: Int[Array, "*b"], out_sharding: Any = None) -> Float[Array, "*b e"]:
        """Embeddings of tokens."""
        sizes = mesh_sizes()
        if out_sharding is not None or not sizes:
            return super().__call__(inputs, out_sharding)
        table = self.embedding[...]
        spec = param_spec(("embed", "embedding"), table.shape, sizes)
        return ops.lookup(table, inputs, spec, self.dtype or table.dtype)

    def attend(self, query: Float[Array, "*b e"], out_sharding: Any = None) -> Float[Array, "*b V"]:
        """Product of each vector with all embeddings."""
        query, embedding = self.promote_dtype((query, self.embedding[...]), dtype=self.dtype)
        dimensions = (((query.ndim - 1,), (1,)), ((), ()))
        return self.dot_general(query, embedding, dimensions, out_sharding=out_sharding)

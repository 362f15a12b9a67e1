"""Prefill and decoding of a run's model, compiled for a slice that is not here.

The programs are those of `inference.programs`. Over a mesh they answer one pack of prompts at a
time: `tensor` and `sequence` share its work out, `data` and `fsdp` share the weights and repeat the
work.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mres_jax.config import Run
from mres_jax.data.types import Pack
from mres_jax.inference import programs
from mres_jax.inference.generate import MIN_CACHE, ROWS
from mres_jax.inference.sampling import Knobs
from mres_jax.models.registry import family_of
from mres_jax.nn import KVCache
from mres_jax.protocols import Sampling
from mres_jax.training.flops import Passes
from mres_jax.training.meshes import shardings
from mres_jax.training.planning.compiled import (
    Compiled,
    bytes_on_device,
    compile_lowered,
    placed,
)
from mres_jax.training.planning.contents import Contents, attention_flops
from mres_jax.training.planning.hlo import Work

NEW_TOKENS = 128  # of an answer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answering:
    """What the compiler says of one phase.

    Attributes:
      contents: what a run of it does, in words.
      compiled: per device; of decoding, one token of every row.
      attention: FLOPs of kernels on a device, which the compiler does not know.
      parameters: bytes on a device.
    """

    contents: str
    compiled: Compiled
    attention: float
    parameters: int


def compile_prefill(run: Run, pack: Pack, held: Contents, mesh: Mesh) -> Answering:
    """Encoding and prefill of the largest pack, one after the other.

    Args:
      run: its model, in its `dtype`.
      pack: shapes.
      held: what it holds.
      mesh: of devices that may not be here.
    """
    (graphdef, state), pack = _model(run, mesh), _everywhere(_prompts(pack), mesh)
    last = _everywhere(jax.ShapeDtypeStruct((len(held.lengths),), np.int32), mesh)
    parts = programs.jitted()
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        visual = _everywhere(_shapes(parts.encode, graphdef, state, pack), mesh)
        encode = parts.encode.lower(graphdef, state, pack)
        prefill = parts.prefill.lower(graphdef, state, pack, visual, last)
    inputs = bytes_on_device((state, pack))
    both = [
        compile_lowered(encode, mesh, arguments=inputs),
        compile_lowered(prefill, mesh, arguments=inputs + bytes_on_device((visual, last))),
    ]
    once = attention_flops(dataclasses.replace(run, remat="none"), held, Passes(1.0, 1.0))
    return Answering(
        contents=f"a pack of {len(held.lengths)} prompts of {held.lengths[0]:,} tokens",
        compiled=_after_each_other(both),
        attention=once / (run.mesh.tensor * run.mesh.sequence),
        parameters=bytes_on_device(state),
    )


def compile_decode(
    run: Run, held: Contents, mesh: Mesh, *, new_tokens: int = NEW_TOKENS
) -> Answering:
    """One token for each of the largest pack's answers, of `new_tokens`; arguments as above."""
    graphdef, state = _model(run, mesh)
    config, count = run.model.text_config, len(held.lengths)
    rows = next((n for n in ROWS if n >= count), ROWS[-1])
    length = MIN_CACHE
    while length < held.lengths[0] + new_tokens:
        length *= 2
    split = config.num_key_value_heads % mesh.shape["tensor"] == 0
    heads = PartitionSpec(None, None, None, "tensor" if split else None)
    shape = (config.num_hidden_layers, rows, length, config.num_key_value_heads, config.head_dim)
    part = jax.ShapeDtypeStruct(shape, run.dtype, sharding=NamedSharding(mesh, heads))
    numbers = jax.eval_shape(lambda: _numbers(rows, config.vocab_size, new_tokens))
    lengths, *numbers = _everywhere(numbers, mesh)
    shapes: Any = (part, part, lengths)
    cache = KVCache(*shapes)
    arguments = (state, cache, *numbers)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        lowered = programs.jitted().decode.lower(graphdef, *arguments, greedy=True, filtered=False)
    compiled = compile_lowered(lowered, mesh, arguments=bytes_on_device(arguments), turns=1)
    return Answering(
        contents=f"a token for each of {rows} answers, {length:,} positions of cache each",
        compiled=compiled,
        attention=0.0,
        parameters=bytes_on_device(state),
    )


def _model(run: Run, mesh: Mesh) -> tuple[Any, Any]:
    """Static part and state, where a run of this mesh has it."""

    def make() -> Any:
        rngs = nnx.Rngs(0)
        model = family_of(run.model).Model(run.model, dtype=run.dtype, remat="none", rngs=rngs)
        graphdef, state = nnx.split(model)
        kept["graphdef"] = graphdef
        return jax.tree.map(lambda x: x.astype(run.dtype), state)

    kept: dict[str, Any] = {}
    state = jax.eval_shape(make)
    return kept["graphdef"], placed(state, shardings(state, mesh))


def _prompts(pack: Pack) -> Any:
    """Shapes of a pack without labels, as a generator gives it to its programs."""
    pack = pack._replace(patch_labels={})
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), pack)


def _everywhere(tree: Any, mesh: Mesh) -> Any:
    """Shapes that every device holds whole."""
    whole = NamedSharding(mesh, PartitionSpec())
    return placed(tree, jax.tree.map(lambda _: whole, tree))


def _shapes(program: Any, graphdef: Any, *arguments: Any) -> Any:
    return jax.eval_shape(lambda *given: program(graphdef, *given), *arguments)


def _numbers(rows: int, vocabulary: int, new_tokens: int) -> tuple[Any, ...]:
    """What decoding takes besides model and keys: lengths first."""
    count = jnp.zeros(rows, jnp.int32)
    zero, words = jnp.zeros((), jnp.int32), jnp.zeros((rows, 2), jnp.uint32)
    table = jnp.zeros((rows, new_tokens), jnp.float32)
    out = programs.Out(table.astype(jnp.int32), table, table, count, count > 0)
    knobs = jax.tree.map(jnp.asarray, Knobs.of(Sampling(temperature=0.0)))
    rules = programs.Rules(
        zero.astype(jnp.uint32), zero, jnp.zeros(2, jnp.int32), jnp.zeros(vocabulary, bool), knobs
    )
    fixed = programs.Rows(count, words, count.astype(jnp.uint32))
    return count, out, zero, zero, count > 0, fixed, rules


def _after_each_other(parts: list[Compiled]) -> Compiled:
    """Programs that do not run at the same time: sums of work, the larger memory."""
    works = [part.work for part in parts if part.work is not None]
    largest = max(parts, key=lambda part: part.argument_bytes + part.temporary_bytes)
    return Compiled(
        argument_bytes=largest.argument_bytes,
        temporary_bytes=largest.temporary_bytes,
        work=None
        if len(works) < len(parts)
        else Work(
            flops=sum(work.flops for work in works),
            memory_bytes=sum(work.memory_bytes for work in works),
            sent=_summed([work.sent for work in works]),
            kernels=_summed([work.kernels for work in works]),
        ),
        sent=_summed([part.sent for part in parts]),
    )


def _summed(counts: list[Mapping[Any, float]]) -> dict[Any, float]:
    names = dict.fromkeys(name for count in counts for name in count)
    return {name: sum(count.get(name, 0.0) for count in counts) for name in names}

"""Prefill and decoding of a run's model, compiled for a slice that is not here.

The programs are those of `inference.programs`. Over a mesh each rank of `data` x `fsdp` answers a
pack of prompts of its own, whose work `tensor` and `sequence` share out.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mres_jax import nn
from mres_jax.config import Run
from mres_jax.data.types import Pack
from mres_jax.inference import programs
from mres_jax.inference.generate import MIN_CACHE, ROWS
from mres_jax.inference.sampling import Knobs
from mres_jax.models.registry import family_of
from mres_jax.ops import PACKS, head_axes
from mres_jax.protocols import Sampling
from mres_jax.training.flops import Passes
from mres_jax.training.meshes import rank_count
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


def compile_gathering(run: Run, mesh: Mesh, *, dtype: str) -> Answering:
    """What `nn.gather_once` does before answers.

    Args:
      run: its model, gathered in its `dtype`.
      mesh: of devices that may not be here.
      dtype: that the parameters lie in.
    """
    graphdef, state = _model(run, mesh, dtype=dtype)
    program = nn.gather_program(graphdef, state, mesh)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        lowered = program.lower(state)
    inputs = bytes_on_device(state)
    return Answering(
        contents=f"all weights whole along fsdp, in {run.dtype}, for the answers of a step",
        compiled=compile_lowered(lowered, mesh, arguments=inputs),
        attention=0.0,
        parameters=inputs,
    )


def compile_prefill(
    run: Run, pack: Pack, held: Contents, mesh: Mesh, *, gathered: bool = False
) -> Answering:
    """Encoding and prefill of the largest pack, one after the other.

    Args:
      run: its model, in its `dtype`.
      pack: shapes.
      held: what it holds.
      mesh: of devices that may not be here.
      gathered: the weights are those of `nn.gather_once`.
    """
    graphdef, state = _model(run, mesh, gathered=gathered)
    pack = _of_ranks(_prompts(pack), mesh)
    last = _of_ranks(jax.ShapeDtypeStruct((len(held.lengths),), np.int32), mesh)
    parts = programs.jitted(over_ranks=rank_count(mesh) > 1)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        visual = _shapes(parts.encode, graphdef, state, pack)
        visual = placed(visual, jax.tree.map(lambda _: _rank_sharding(mesh), visual))
        encode = parts.encode.lower(graphdef, state, pack)
        prefill = parts.prefill.lower(graphdef, state, pack, visual, last)
    inputs = bytes_on_device((state, pack))
    both = [
        compile_lowered(encode, mesh, arguments=inputs),
        compile_lowered(prefill, mesh, arguments=inputs + bytes_on_device((visual, last))),
    ]
    once = attention_flops(dataclasses.replace(run, remat="none"), held, Passes(1.0, 1.0))
    return Answering(
        contents=(
            f"{_of_packs(mesh) or 'a pack'} of {len(held.lengths)} prompts of "
            f"{held.lengths[0]:,} tokens"
        ),
        compiled=_after_each_other(both),
        attention=once / (run.mesh.tensor * run.mesh.sequence),
        parameters=bytes_on_device(state),
    )


def compile_decode(
    run: Run,
    held: Contents,
    mesh: Mesh,
    *,
    new_tokens: int = NEW_TOKENS,
    gathered: bool = False,
) -> Answering:
    """One token for each of the largest pack's answers, of `new_tokens`; arguments as above."""
    graphdef, state = _model(run, mesh, gathered=gathered)
    config, count = run.model.text_config, len(held.lengths)
    rows = next((n for n in ROWS if n >= count), ROWS[-1])
    length = MIN_CACHE
    while length < held.lengths[0] + new_tokens:
        length *= 2
    numbers = jax.eval_shape(lambda: _numbers(rows, new_tokens))
    lengths, out, active, fixed = _of_ranks(numbers, mesh)
    rules = _everywhere(jax.eval_shape(lambda: _rules(config.vocab_size)), mesh)
    cache = _cache(run, mesh, rows, length)._replace(lengths=lengths)
    ends = (_everywhere(jax.ShapeDtypeStruct((), np.int32), mesh),) * 2
    arguments = (state, cache, out, *ends, active, fixed, rules)
    program = programs.jitted(over_ranks=rank_count(mesh) > 1).decode
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        lowered = program.lower(graphdef, *arguments, greedy=True, filtered=False)
    held_bytes = bytes_on_device(arguments)
    compiled = compile_lowered(lowered, mesh, arguments=held_bytes, turns=new_tokens)
    return Answering(
        contents=(
            f"a token for each of {rows} answers{_of_packs(mesh, ' to ')}, "
            f"{length:,} positions of cache each"
        ),
        compiled=_shared_out(compiled, new_tokens),
        attention=0.0,
        parameters=bytes_on_device(state),
    )


def _model(
    run: Run, mesh: Mesh, *, dtype: str | None = None, gathered: bool = False
) -> tuple[Any, Any]:
    """Static part and state, where a run of this mesh has it; in the run's dtype for None."""

    def make() -> Any:
        rngs = nnx.Rngs(0)
        model = family_of(run.model).Model(run.model, dtype=run.dtype, remat="none", rngs=rngs)
        graphdef, state = nnx.split(model)
        kept["graphdef"] = graphdef
        return jax.tree.map(lambda x: x.astype(dtype or run.dtype), state)

    kept: dict[str, Any] = {}
    state = jax.eval_shape(make)
    return kept["graphdef"], placed(state, nn.state_shardings(state, mesh, gathered=gathered))


def _prompts(pack: Pack) -> Any:
    """Shapes of a pack without labels, as a generator gives it to its programs."""
    pack = pack._replace(patch_labels={})
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), pack)


def _of_packs(mesh: Mesh, before: str = "") -> str:
    """The packs that are answered together, where there are several."""
    ranks = rank_count(mesh)
    return f"{before}each of {ranks} packs" if ranks > 1 else ""


def _cache(run: Run, mesh: Mesh, rows: int, length: int) -> nn.KVCache:
    """Shapes of keys and values, without lengths."""
    config = run.model.text_config
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        where = [None, None, head_axes(config.num_key_value_heads)]
    shape = [config.num_hidden_layers, rows, config.num_key_value_heads, length, config.head_dim]
    if rank_count(mesh) > 1:
        shape.insert(1, rank_count(mesh))
        where.insert(1, PACKS)
    sharding = NamedSharding(mesh, PartitionSpec(*where))
    part: Any = jax.ShapeDtypeStruct(tuple(shape), run.dtype, sharding=sharding)
    return nn.KVCache(part, part, part)


def _of_ranks(tree: Any, mesh: Mesh) -> Any:
    """Shapes of one pack, for each rank where there are several."""
    ranks = rank_count(mesh)
    if ranks > 1:
        tree = jax.tree.map(lambda x: jax.ShapeDtypeStruct((ranks, *x.shape), x.dtype), tree)
    return placed(tree, jax.tree.map(lambda _: _rank_sharding(mesh), tree))


def _rank_sharding(mesh: Mesh) -> NamedSharding:
    return nn.pack_sharding(mesh) if rank_count(mesh) > 1 else NamedSharding(mesh, PartitionSpec())


def _everywhere(tree: Any, mesh: Mesh) -> Any:
    """Shapes that every device holds whole."""
    whole = NamedSharding(mesh, PartitionSpec())
    return placed(tree, jax.tree.map(lambda _: whole, tree))


def _shapes(program: Any, graphdef: Any, *arguments: Any) -> Any:
    return jax.eval_shape(lambda *given: program(graphdef, *given), *arguments)


def _numbers(rows: int, new_tokens: int) -> tuple[Any, ...]:
    """What decoding takes of the rows of a cache: lengths, results, who is active, what stays."""
    count, words = jnp.zeros(rows, jnp.int32), jnp.zeros((rows, 2), jnp.uint32)
    table = jnp.zeros((rows, new_tokens), jnp.float32)
    out = programs.Out(table.astype(jnp.int32), table, table, count, count > 0)
    return count, out, count > 0, programs.Rows(count, words, count.astype(jnp.uint32))


def _rules(vocabulary: int) -> programs.Rules:
    """How it draws."""
    zero = jnp.zeros((), jnp.int32)
    knobs = jax.tree.map(jnp.asarray, Knobs.of(Sampling(temperature=0.0)))
    seed, stops = zero.astype(jnp.uint32), jnp.zeros(2, jnp.int32)
    return programs.Rules(seed, zero, stops, jnp.zeros(vocabulary, bool), knobs)


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


def _shared_out(part: Compiled, times: int) -> Compiled:
    """What each of so many turns of a program does, with its share of what is done once."""

    def share(counts: Mapping[Any, float]) -> dict[Any, float]:
        return {name: count / times for name, count in counts.items()}

    work = part.work
    if work is not None:
        work = Work(
            flops=work.flops / times,
            memory_bytes=work.memory_bytes / times,
            sent=share(work.sent),
            kernels=share(work.kernels),
        )
    return dataclasses.replace(part, work=work, sent=share(part.sent))


def _summed(counts: list[Mapping[Any, float]]) -> dict[Any, float]:
    names = dict.fromkeys(name for count in counts for name in count)
    return {name: sum(count.get(name, 0.0) for count in counts) for name in names}

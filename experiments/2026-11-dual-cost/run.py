"""What one picture costs LLaVA-1.5, LLaVA-NeXT and LLaVA-HR at 7 B, from compiled programs.

python experiments/2026-11-dual-cost/run.py [--csv results.csv] [--rows NAME,...]

Programs are compiled for the CPU from shapes, at full depth, and never run. Of a loop the compiler
counts one turn: every further layer is counted by compiling it alone, and the products of
attention, whose tiles are loops too, are put in their place by number.
"""

import argparse
import csv
import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from mres_jax import nn, ops
from mres_jax.data.packing import empty_pack
from mres_jax.data.types import Pack, Rung
from mres_jax.inference import cost
from mres_jax.models.clip.config import ClipConfig
from mres_jax.models.llama.config import vicuna
from mres_jax.models.llava.config import LlavaConfig
from mres_jax.models.llava_hr.presets import llava_hr
from mres_jax.models.llava_next.config import LlavaNextConfig
from mres_jax.models.qwen2.config import TextConfig
from mres_jax.models.qwen2.model import Decoder
from mres_jax.models.registry import family_of

TEXT, DTYPE = 64, jnp.float32


class Row(NamedTuple):
    """One line of the table."""

    name: str
    config: Any
    views: tuple[int, ...]  # patches of each
    visual_tokens: int
    canvas: tuple[int, int] | None = None  # px


def rows() -> list[Row]:
    """All lines."""
    parts = {"vision_config": ClipConfig(), "text_config": vicuna("7b")}
    out = []
    for side in (336, 672, 1_022):
        patches = (side // 14) ** 2
        config = LlavaConfig(**parts, input_image_size=side)
        out.append(Row(f"LLaVA-1.5, {side}", config, (patches,), patches))
    tiles = LlavaNextConfig(**parts)
    out.append(Row("LLaVA-NeXT, 2 x 2 tiles", tiles, (576,) * 5, 2_928))
    for side in (384, 768, 1_024, 1_536):
        config = llava_hr("7b", side=side)
        patches = config.vision_config.grid_side**2
        out.append(Row(f"LLaVA-HR, {side}", config, (patches,), patches, (side, side)))
    native = llava_hr("7b", image_aspect_ratio="native")
    for height, width in ((576, 1_024), (768, 1_344)):
        patches = height * width // 32**2
        name = f"native LLaVA-HR, 16:9 at {width} x {height}"
        out.append(Row(name, native, (patches,), patches, (height, width)))
    return out


class Compiled(NamedTuple):
    """What the compiler says of a program."""

    flops: float
    temporary: int  # bytes


def compiled(function: Callable[..., Any], *shapes: Any) -> Compiled:
    """Compiles a program from shapes."""
    program = jax.jit(function).lower(*shapes).compile()
    analysis, memory = program.cost_analysis() or {}, program.memory_analysis()
    return Compiled(analysis.get("flops", 0.0), memory.temp_size_in_bytes if memory else 0)


def layer(stack: nnx.Module, call: Callable[..., Any], *shapes: Any) -> float:
    """FLOPs of one layer of a stack."""
    graphdef, state = nnx.split(stack)
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), state)
    return compiled(lambda s, *a: call(nnx.merge(graphdef, s), *a), one, *shapes).flops


@functools.cache
def attention(length: int, heads: int, head_dim: int, *, causal: bool) -> float:
    """FLOPs that the compiler counts of the attention of one picture or prompt."""
    x = jax.ShapeDtypeStruct((length, heads, head_dim), DTYPE)
    ids = jax.ShapeDtypeStruct((length,), jnp.int32)

    def run(q, k, v, ids):
        return ops.varlen_attention(q, k, v, ops.make_plan(segment_ids=ids, causal=causal))

    return compiled(run, x, x, x, ids).flops


def vision(row: Row, model: Any, pack: Pack) -> Compiled:
    """From pixels to visual tokens at the decoder's width."""
    graphdef, state = nnx.split(model)
    whole = compiled(lambda s, p: nnx.merge(graphdef, s).encode(p).tokens, state, pack)
    dual = row.canvas is not None
    tower = model.vision.low if dual else model.vision
    config = tower.config
    groups = row.config.vision_config.num_adapters + 1 if dual else 1
    has_class = len(row.views) * config.class_token
    length = _up(sum(row.views) + has_class)
    x = jax.ShapeDtypeStruct((length, config.hidden_size), DTYPE)
    ids = jax.ShapeDtypeStruct((length,), jnp.int32)
    again = config.num_layers_run - groups
    flops = whole.flops + again * layer(
        tower.blocks, lambda b, x, i: b(x, ops.make_plan(segment_ids=i)), x, ids
    )
    heads = config.num_attention_heads
    seen = sum(4 * (n + config.class_token) ** 2 * config.hidden_size for n in row.views)
    counted = attention(length, heads, config.hidden_size // heads, causal=False)
    flops += config.num_layers_run * (seen - counted)
    if dual:
        flops += _further_blocks(model.vision.high, row.canvas)
    return whole._replace(flops=flops)


def _further_blocks(high: Any, canvas: Any) -> float:
    """FLOPs of all but the first block of each stage."""
    total = 0.0
    for number, (depth, size) in enumerate(
        zip(high.config.depths, high.config.hidden_sizes, strict=True)
    ):
        cells = (1, *(extent // (4 * 2**number) for extent in canvas))
        x = jax.ShapeDtypeStruct((*cells, size), DTYPE)
        mask = jax.ShapeDtypeStruct(cells, bool)
        block = layer(high.stages[number].blocks, lambda b, x, m: b(x, m), x, mask)
        total += (depth - 1) * block
    return total


@functools.cache
def prefill(config: TextConfig, length: int) -> Compiled:
    """From visual tokens and text, `length` in all, to the scores of the first token."""
    decoder = nnx.eval_shape(lambda: Decoder(config, dtype=DTYPE, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(decoder)
    x = jax.ShapeDtypeStruct((length, config.hidden_size), DTYPE)
    positions = jax.ShapeDtypeStruct((3, length), jnp.int32)
    ids = jax.ShapeDtypeStruct((length,), jnp.int32)

    def run(s, x, positions, ids):
        decoder = nnx.merge(graphdef, s)
        plan = ops.make_plan(segment_ids=ids, causal=True)
        hidden, keys, values = decoder.prefill(x, positions, plan)
        return decoder.logits(hidden[-1:]), keys, values

    def one(block, x, positions, ids):
        rotary = nn.decoder_rotary(
            positions, head_dim=config.head_dim, theta=config.rope_theta, mrope_section=None
        )
        return block(x, rotary, ops.make_plan(segment_ids=ids, causal=True))

    whole = compiled(run, state, x, positions, ids)
    layers = config.num_hidden_layers
    flops = whole.flops + (layers - 1) * layer(decoder.layers, one, x, positions, ids)
    seen = 2 * length * (length + 1) * config.num_attention_heads * config.head_dim
    counted = attention(length, config.num_attention_heads, config.head_dim, causal=True)
    return whole._replace(flops=flops + layers * (seen - counted))


def counted(row: Row) -> dict[str, Any]:
    """What follows from the sizes alone."""
    text, tokens = row.config.text_config, row.visual_tokens + TEXT
    kv = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim * 2 * tokens
    return {
        "model": row.name,
        "visual_tokens": row.visual_tokens,
        "decode_gflops": round(cost.decode_flops(text, tokens, 2) / 1e9, 2),
        "kv_mib": round(kv / 2**20),  # bfloat16
        "vision_by_formula": round(row.config.encoder_flops(list(row.views)) / 1e12, 3),
        "prefill_by_formula": round(cost.prefill_flops(text, tokens) / 1e12, 2),
    }


def measure(row: Row) -> dict[str, Any]:
    """One line of the table."""
    family = family_of(row.config)
    model = family.skeleton(row.config, dtype=DTYPE)
    spec = family.make_spec(row.config, lambda name: 2)
    tokens = row.visual_tokens + TEXT
    rung = Rung(
        max_patches=_up(sum(row.views)),
        max_tokens=_up(tokens),
        max_views=len(row.views),
        max_examples=1,
        canvases=(row.canvas,) if row.canvas else (),
    )
    pack = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), empty_pack(rung, spec))
    seeing, reading = vision(row, model, pack), prefill(row.config.text_config, _up(tokens))
    return counted(row) | {
        "vision_tflops": round(seeing.flops / 1e12, 3),
        "prefill_tflops": round(reading.flops / 1e12, 2),
        "vision_temporary_mib": round(seeing.temporary / 2**20),
        "prefill_temporary_mib": round(reading.temporary / 2**20),
    }


def _up(length: int) -> int:
    return -(-length // ops.ROW_MULTIPLE) * ops.ROW_MULTIPLE


def main() -> None:
    """Prints the table, and keeps it row by row."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--csv", type=pathlib.Path, help="rows that stand there are not made again")
    parser.add_argument("--formulas", action="store_true", help="compile nothing")
    parser.add_argument("--rows", default="", help="parts of names, with / between")
    args = parser.parse_args()
    table = []
    if args.csv and args.csv.exists():
        table = list(csv.DictReader(args.csv.open(newline="")))
    for row in rows():
        if row.name in {line["model"] for line in table}:
            continue
        if any(part in row.name for part in args.rows.split("/")):
            table.append(counted(row) if args.formulas else measure(row))
            print(", ".join(f"{k}={v}" for k, v in table[-1].items()), flush=True)
            if args.csv:
                _write(args.csv, table)


def _write(path: pathlib.Path, table: list[dict[str, Any]]) -> None:
    order = [row.name for row in rows()]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(table, key=lambda line: order.index(line["model"])))


if __name__ == "__main__":
    main()

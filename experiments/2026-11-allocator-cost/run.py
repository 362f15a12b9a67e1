"""What an allocator costs beside a 7 B backbone, eyes included: counted, compiled, and a time.

python experiments/2026-11-allocator-cost/run.py [--csv results.csv] [--count] [--time]

Frames of 1280 x 720 px in pairs of 36 x 20 visual tokens (Qwen2.5-VL's native size), a question of
32 tokens, an answer of 64; the backbone has the sizes of Qwen2-VL-7B, the eyes those of
SmolVLM2-256M.

Counted is by sizes (`inference.cost`, `resolution.allocator.flops`). Compiled is what XLA says of
the same programs, compiled for the CPU from shapes at full depth and never run. Of a loop XLA
counts one turn: every further layer is counted by compiling it alone, and the products of
attention, whose tiles are loops too, are put in their place by number.
"""

import argparse
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mres_jax import nn, ops
from mres_jax.data.packing import empty_pack
from mres_jax.data.types import Pack, Rung
from mres_jax.errors import CheckpointError
from mres_jax.evaluation.csv_text import records_to_csv
from mres_jax.geometry import Grid
from mres_jax.inference import cost
from mres_jax.inference.eyes import SIDE
from mres_jax.models.qwen2.config import TextConfig
from mres_jax.models.qwen2.model import Decoder
from mres_jax.models.qwen2_vl.config import Qwen2VLConfig, VisionConfig
from mres_jax.models.registry import family_of
from mres_jax.models.smolvlm.config import SmolVLMConfig, smolvlm2
from mres_jax.models.smolvlm.model import SmolVLM
from mres_jax.resolution.allocator.config import TOKENS_PER_FRAME, preset
from mres_jax.resolution.allocator.features import ClipFeatures
from mres_jax.resolution.allocator.flops import allocator_flops
from mres_jax.resolution.allocator.network import AllocatorNetwork

QUESTION, ANSWER, COLUMNS, ROWS = 32, 64, 36, 20
FRAMES, RETENTIONS = (2, 16, 32, 128), (1.0, 0.5, 0.25, 0.1)
DTYPE, NETWORK = jnp.float32, preset("released_v2")


@functools.cache
def seven_b() -> Qwen2VLConfig:
    """Sizes of Qwen2-VL-7B."""
    return Qwen2VLConfig(
        vision_config=VisionConfig(depth=32, embed_dim=1280, num_heads=16, hidden_size=3584),
        text_config=TextConfig(
            vocab_size=152_064,
            hidden_size=3584,
            intermediate_size=18_944,
            num_hidden_layers=28,
            num_attention_heads=28,
            num_key_value_heads=4,
        ),
    )


@functools.cache
def smol(side: int) -> SmolVLMConfig:
    """SmolVLM2-256M that sees squares of `side` px as 8 x 8 visual tokens."""
    config = smolvlm2("256m")
    patches = side // config.vision_config.patch_size
    vision = dataclasses.replace(
        config.vision_config, image_size=side, spatial_merge_size=patches // SIDE
    )
    return dataclasses.replace(config, vision_config=vision)


def eyes() -> dict[str, tuple[Any, int]]:
    """Name -> model, and patches a side of the square that it makes of a frame."""
    return {
        "SigLIP 512 px": (smol(512), 32),
        "SigLIP 256 px": (smol(256), 16),
        "the backbone's own tower, 224 px": (seven_b(), 2 * SIDE),
    }


def view(retention: float) -> tuple[int, int]:
    """Rows and columns of the visual tokens of a pair."""
    scale = retention**0.5
    return max(1, round(ROWS * scale)), max(1, round(COLUMNS * scale))


def length_of(frames: int, retention: float) -> int:
    """Tokens of a prompt."""
    rows, columns = view(retention)
    return frames // 2 * rows * columns + QUESTION


class Counted:
    """FLOPs by sizes."""

    def eyes(self, config: Any, side: int, frames: int) -> float:
        """Of all frames, and of reading the question."""
        seen = cost.encoder_flops(config, [Grid(1, side, side)] * frames)
        return seen + cost.text_flops(config.text_config, [QUESTION], 0)

    def network(self, frames: int) -> float:
        """Of the allocator itself."""
        return allocator_flops(NETWORK, num_frames=frames, question_tokens=QUESTION)

    def tower(self, frames: int, retention: float) -> float:
        """From pixels to visual tokens at the decoder's width."""
        rows, columns = view(retention)
        pairs = frames // 2
        grids = [Grid(1, 2 * rows, 2 * columns)] * pairs
        return cost.encoder_flops(seven_b(), grids, moving=4 * rows * columns * pairs)

    def prefill(self, frames: int, retention: float) -> float:
        """From visual tokens and question to the scores of the first token."""
        return cost.prefill_flops(seven_b().text_config, length_of(frames, retention))

    def decode(self, frames: int, retention: float) -> float:
        """Of the other tokens of an answer."""
        return cost.decode_flops(seven_b().text_config, length_of(frames, retention), ANSWER)


class Compiled:
    """FLOPs that XLA counts; the same methods."""

    def eyes(self, config: Any, side: int, frames: int) -> float:
        return encoded(config, Grid(1, side, side), frames) + read(config.text_config, QUESTION)

    def network(self, frames: int) -> float:
        made = nnx.eval_shape(lambda: AllocatorNetwork(NETWORK, dtype=DTYPE, rngs=nnx.Rngs(0)))
        graphdef, state = nnx.split(made)
        clips = ClipFeatures(
            frames=shape(frames, TOKENS_PER_FRAME, NETWORK.frame_size),
            segment_ids=shape(frames, dtype=jnp.int32),
            question=shape(1, QUESTION, NETWORK.question_size),
            question_mask=shape(1, QUESTION, dtype=jnp.bool_),
        )
        whole = flops(lambda s, c: nnx.merge(graphdef, s).mean_scales(c), state, clips)
        heads, head_dim = NETWORK.num_temporal_heads, NETWORK.head_dim
        seen = 4 * TOKENS_PER_FRAME * frames**2 * heads * head_dim
        counted = attention(TOKENS_PER_FRAME * frames, heads, head_dim, causal=False)
        return whole + NETWORK.num_layers * (seen - counted)

    def tower(self, frames: int, retention: float) -> float:
        rows, columns = view(retention)
        return encoded(seven_b(), Grid(1, 2 * rows, 2 * columns), frames // 2, moving=True)

    def prefill(self, frames: int, retention: float) -> float:
        config, length = seven_b().text_config, length_of(frames, retention)
        return read(config, length) + scored(config)

    def decode(self, frames: int, retention: float) -> float:
        length = length_of(frames, retention) + ANSWER
        return (ANSWER - 1) * (grown(seven_b().text_config, length) + scored(seven_b().text_config))


def shape(*sizes: int, dtype: Any = DTYPE) -> Any:
    """Of an array that nobody makes."""
    return jax.ShapeDtypeStruct(sizes, dtype)


def flops(function: Callable[..., Any], *shapes: Any) -> float:
    """What XLA counts of a program."""
    analysis = jax.jit(function).lower(*shapes).compile().cost_analysis() or {}
    return float(analysis.get("flops", 0.0))


def further_layers(stack: Any, count: int, call: Callable[..., Any], *shapes: Any) -> float:
    """Of all layers of a stack but the one that XLA counts."""
    graphdef, state = nnx.split(stack)
    one = jax.tree.map(lambda x: shape(*x.shape[1:], dtype=x.dtype), state)
    return (count - 1) * flops(lambda s, *a: call(nnx.merge(graphdef, s), *a), one, *shapes)


@functools.cache
def attention(length: int, heads: int, head_dim: int, *, causal: bool) -> float:
    """What XLA counts of the attention of a pack."""
    x, ids = shape(length, heads, head_dim), shape(length, dtype=jnp.int32)

    def run(q, k, v, ids):
        return ops.varlen_attention(q, k, v, ops.make_plan(segment_ids=ids, causal=causal))

    return flops(run, x, x, x, ids)


@functools.cache
def encoded(config: Any, grid: Grid, views: int, *, moving: bool = False) -> float:
    """Views of one grid, from pixels to visual tokens at the decoder's width."""
    family, vision = family_of(config), config.vision_config
    length = up(views * grid.num_patches)
    rung = Rung(max_patches=length, max_tokens=up(64), max_views=views, max_examples=1)
    spec = family.make_spec(config, token_id)
    pack = empty_pack(rung, spec, frames=2 if moving else 1)
    pack = jax.tree.map(lambda x: shape(*x.shape, dtype=x.dtype), pack)
    model: Any = family.skeleton(config, dtype=DTYPE)
    graphdef, state = nnx.split(model)
    whole = flops(lambda s, p: nnx.merge(graphdef, s).encode(p).tokens, state, pack)
    qwen = isinstance(vision, VisionConfig)
    depth = vision.depth if qwen else vision.num_hidden_layers
    heads = vision.num_heads if qwen else vision.num_attention_heads
    x, ids = shape(length, vision.width), shape(length, dtype=jnp.int32)

    def rotary_of(pack: Pack) -> Any:
        return nn.vision_rotary(pack.patch_positions, head_dim=vision.width // heads)

    rotary = (jax.eval_shape(rotary_of, pack),) if qwen else ()

    def one(block: Any, x: Any, ids: Any, *rotary: Any) -> Any:
        return block(x, *rotary, ops.make_plan(segment_ids=ids))

    layers = further_layers(model.vision.blocks, depth, one, x, ids, *rotary)
    seen = 4 * views * grid.num_patches**2 * vision.width
    counted = attention(length, heads, vision.width // heads, causal=False)
    return whole + layers + depth * (seen - counted)


@functools.cache
def decoder_of(config: TextConfig) -> Any:
    """Shapes of a decoder."""
    return nnx.eval_shape(lambda: Decoder(config, dtype=DTYPE, rngs=nnx.Rngs(0)))


def rotary_of(config: TextConfig, count: int) -> Any:
    """Shapes of the angles of so many tokens."""
    return jax.eval_shape(
        lambda p: nn.decoder_rotary(p, head_dim=config.head_dim, theta=config.rope_theta),
        shape(3, count, dtype=jnp.int32),
    )


@functools.cache
def read(config: TextConfig, tokens: int) -> float:
    """Embedded tokens through all layers, with their keys and values; nothing is scored."""
    decoder, length = decoder_of(config), up(tokens)
    graphdef, state = nnx.split(decoder)
    x, ids = shape(length, config.hidden_size), shape(length, dtype=jnp.int32)

    def run(s, x, positions, ids):
        plan = ops.make_plan(segment_ids=ids, causal=True)
        return nnx.merge(graphdef, s).prefill(x, positions, plan)

    def one(block, x, rotary, ids):
        return block(x, rotary, ops.make_plan(segment_ids=ids, causal=True))

    layers, heads = config.num_hidden_layers, config.num_attention_heads
    whole = flops(run, state, x, shape(3, length, dtype=jnp.int32), ids)
    more = further_layers(decoder.layers, layers, one, x, rotary_of(config, length), ids)
    seen = 2 * tokens * (tokens + 1) * heads * config.head_dim
    counted = attention(length, heads, config.head_dim, causal=True)
    return whole + more + layers * (seen - counted)


@functools.cache
def grown(config: TextConfig, tokens: int) -> float:
    """One more token through all layers, behind a cache of so many positions."""
    decoder, length = decoder_of(config), up(tokens)
    graphdef, state = nnx.split(decoder)
    kept = (config.num_hidden_layers, 1, config.num_key_value_heads, length, config.head_dim)
    cache = nn.KVCache(shape(*kept), shape(*kept), shape(1, dtype=jnp.int32))
    x = shape(1, config.hidden_size)

    def run(s, x, positions, cache):
        return nnx.merge(graphdef, s).decode(x, positions, cache)

    def one(block, x, rotary, cache):
        return block.decode(x, rotary, cache, 0)

    whole = flops(run, state, x, shape(3, 1, dtype=jnp.int32), cache)
    own = nn.KVCache(shape(1, *kept[1:]), shape(1, *kept[1:]), cache.lengths)
    layers = config.num_hidden_layers
    return whole + further_layers(decoder.layers, layers, one, x, rotary_of(config, 1), own)


@functools.cache
def scored(config: TextConfig) -> float:
    """Scores over the vocabulary behind one token."""
    graphdef, state = nnx.split(decoder_of(config))
    return flops(lambda s, x: nnx.merge(graphdef, s).logits(x), state, shape(1, config.hidden_size))


def token_id(name: str) -> int:
    """Of any token; there are no tiles but the first."""
    if "_2>" in name:
        raise CheckpointError(f"no {name}")
    return 2


def up(length: int) -> int:
    """As packs are filled."""
    return -(-length // ops.ROW_MULTIPLE) * ops.ROW_MULTIPLE


def shares(by: Counted | Compiled, config: Any, side: int, frames: int, retention: float):
    """Parts of the pipeline in TFLOPs, and what follows."""
    looking = by.eyes(config, side, frames)
    own = by.network(frames)
    parts = [by.tower(frames, retention), by.prefill(frames, retention)]
    parts.append(by.decode(frames, retention))
    native = sum(part(frames, 1.0) for part in (by.tower, by.prefill, by.decode))
    whole = looking + own + sum(parts)
    names = ("eyes", "network", "tower", "prefill", "decode")
    found = {
        f"{name}_tflops": round(part / 1e12, 3)
        for name, part in zip(names, (looking, own, *parts), strict=True)
    }
    found["share"] = round((looking + own) / whole, 4)
    found["of_native"] = round(whole / native, 4)
    found["pays_below"] = round(1 - (looking + own) / native, 4)
    return found


def frame_ms(side: int, *, rounds: int = 3) -> float:
    """Least time of a frame through the tower of the eyes, all layers, random weights."""
    config = smol(side)
    make = SmolVLM(
        dataclasses.replace(
            config,
            text_config=dataclasses.replace(config.text_config, num_hidden_layers=1, vocab_size=64),
        ),
        dtype=DTYPE,
        rngs=nnx.Rngs(0),
    )
    count = (side // config.vision_config.patch_size) ** 2
    rung = Rung(max_patches=up(count), max_tokens=up(64), max_views=1, max_examples=1)
    pack = empty_pack(rung, family_of(config).make_spec(config, token_id))
    pack = pack._replace(patch_segment_ids=np.ones_like(pack.patch_segment_ids))
    graphdef, state = nnx.split(make)
    encode = jax.jit(lambda s, p: nnx.merge(graphdef, s).encode(p).tokens)
    jax.block_until_ready(encode(state, pack))
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        jax.block_until_ready(encode(state, pack))
        best = min(best, time.perf_counter() - start)
    return 1e3 * best


def main() -> None:
    """Prints shares of the whole, by both counts, and keeps them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--csv", type=pathlib.Path)
    parser.add_argument("--count", action="store_true", help="compile nothing")
    parser.add_argument("--time", action="store_true", help="of a frame through either tower, only")
    parser.add_argument("--frames", type=int, nargs="*", default=FRAMES)
    args = parser.parse_args()
    if args.time:
        for side in (512, 256):
            print(f"SigLIP {side} px: {frame_ms(side):.0f} ms a frame", flush=True)
        return
    counts: dict[str, Counted | Compiled] = {"counted": Counted()}
    if not args.count:
        counts["compiled"] = Compiled()
    rows = []
    for frames in args.frames:
        for name, (config, side) in eyes().items():
            for retention in RETENTIONS:
                for how, by in counts.items():
                    row: dict[str, Any] = {"eyes": name, "frames": frames, "retention": retention}
                    rows.append(row | {"by": how} | shares(by, config, side, frames, retention))
                    print(", ".join(f"{k}={v}" for k, v in rows[-1].items()), flush=True)
        if args.csv:
            args.csv.write_bytes(records_to_csv(rows))


if __name__ == "__main__":
    main()

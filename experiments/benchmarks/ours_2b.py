"""Our side of transformers_2b.py."""

import collections
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from measure import loaded_versions, run_side
from peer_2b import (
    CHECKED,
    GRIDS,
    MERGE,
    NUM_TOKENS,
    VOCABULARY,
    batch_tokens,
    pixels,
    tiles,
    tokens,
)

from mres_jax import ops
from mres_jax.data.packing import pack
from mres_jax.data.patches import block_positions
from mres_jax.data.positions import rotary_positions
from mres_jax.data.types import Example, Rung
from mres_jax.geometry import Box, Grid, Size, View
from mres_jax.inference.generate import Generator
from mres_jax.models.qwen2.config import TextConfig
from mres_jax.models.qwen2_vl.config import Qwen2VLConfig, VisionConfig
from mres_jax.models.qwen2_vl.convert import key_table
from mres_jax.models.qwen2_vl.model import Qwen2VL
from mres_jax.models.safetensors_files import empty
from mres_jax.models.weights import load_weights
from mres_jax.protocols import Sampling
from mres_jax.testing import tiny_qwen2_vl


def config(layers: tuple[int, int], vocabulary: int) -> Qwen2VLConfig:
    return Qwen2VLConfig(
        vision_config=VisionConfig(depth=layers[0], embed_dim=1280, hidden_size=1536, num_heads=16),
        text_config=TextConfig(
            vocab_size=vocabulary,
            hidden_size=1536,
            intermediate_size=8960,
            num_hidden_layers=layers[1],
            num_attention_heads=12,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            mrope_section=(16, 24, 24),
        ),
        image_token_id=vocabulary - 1,
        video_token_id=vocabulary - 2,
    )


def skeleton(sizes: Qwen2VLConfig, dtype: str) -> Qwen2VL:
    return nnx.eval_shape(lambda: Qwen2VL(sizes, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0)))


def build(dtype: str, layers: tuple[int, int]) -> Qwen2VL:
    """The model, each layer with memory of its own."""
    graphdef, state = nnx.split(skeleton(config(layers, VOCABULARY), dtype))

    def fill(path, leaf):
        flat = empty((leaf.size,), np.dtype(dtype))  # as `load_weights` does: jax keeps this memory
        flat[:] = 1
        if "scale" not in jax.tree_util.keystr(path):
            for place, block in tiles(leaf.size):
                flat[place] = block.astype(flat.dtype)
        return jax.device_put(flat.reshape(leaf.shape))

    return nnx.merge(graphdef, jax.tree_util.tree_map_with_path(fill, state))


def prompt() -> Example:
    """Eight pictures and a few tokens."""
    grids = tuple(Grid(1, *grid) for grid in GRIDS)
    visual = [grid.num_visual_tokens(MERGE) for grid in grids]
    runs = [*grids, NUM_TOKENS - sum(visual)]
    is_text = np.arange(NUM_TOKENS) >= sum(visual)
    views = tuple(
        View(item=i, crop=Box(0, 0, 1, 1), size=Size(14 * g.h, 14 * g.w), group=i)
        for i, g in enumerate(grids)
    )
    return Example(
        tokens=tokens(VOCABULARY),
        slots=np.where(is_text, -1, np.arange(NUM_TOKENS)).astype(np.int32),
        positions=rotary_positions("mrope", runs, merge_size=MERGE),
        loss_mask=np.zeros(NUM_TOKENS, bool),
        patches=pixels(),
        patch_positions=np.concatenate([block_positions(g, merge_size=MERGE) for g in grids]),
        grids=grids,
        views=views,
    )


def batch() -> list[Example]:
    """A prompt about each picture, of its own length."""
    examples, rows = [], pixels()
    for grid, ids in zip(GRIDS, batch_tokens(VOCABULARY), strict=True):
        one = Grid(1, *grid)
        visual, (patches, rows) = one.num_visual_tokens(MERGE), np.split(rows, [one.num_patches])
        view = View(item=0, crop=Box(0, 0, 1, 1), size=Size(14 * one.h, 14 * one.w))
        runs, places = [one, len(ids) - visual], np.arange(len(ids))
        examples.append(
            Example(
                tokens=ids,
                slots=np.where(places >= visual, -1, places).astype(np.int32),
                positions=rotary_positions("mrope", runs, merge_size=MERGE),
                loss_mask=np.zeros(len(ids), bool),
                patches=patches,
                patch_positions=block_positions(one, merge_size=MERGE),
                grids=(one,),
                views=(view,),
            )
        )
    return examples


def rung_of(examples: Sequence[Example]) -> Rung:
    """The smallest lengths that hold them: multiples of 16."""
    num_patches, num_tokens, num_views = np.sum([e.size for e in examples], axis=0).tolist()
    return Rung(
        max_patches=-(-num_patches // 16) * 16,
        max_tokens=-(-num_tokens // 16) * 16,
        max_views=num_views,
        max_examples=len(examples),
    )


def check(folder: pathlib.Path) -> None:
    """Prints how far we are from what the other side wrote."""
    sizes = config(**CHECKED)
    model = skeleton(sizes, "float32")
    nnx.update(model, load_weights(folder, model, key_table(sizes)))
    examples = [prompt()]
    packed = pack(examples, rung_of(examples))
    vocabulary = sizes.text_config.vocab_size

    @nnx.jit
    def read(model, ids, owners, places):
        plan = ops.make_plan(owners, causal=True)
        return model.logits(model.text(model.text.embed(ids), jnp.tile(places, (3, 1)), plan))

    def last(prompts):
        """Scores behind prompts in one pack."""
        lengths = [len(ids) for ids in prompts]
        owners = np.repeat(np.arange(len(lengths)) + 1, lengths)
        places = np.concatenate([np.arange(n) for n in lengths])
        rows = (np.concatenate(prompts), owners, places)
        room = (0, -len(owners) % 16)
        return read(model, *(np.pad(x.astype(np.int32), room) for x in rows))[
            np.cumsum(lengths) - 1
        ]

    theirs = np.load(folder / "theirs.npz")
    encode = nnx.jit(lambda model, packed: model.encode(packed).tokens)
    found = {
        "tower": encode(model, packed._replace(patch_labels={})),
        "prefill": last([tokens(vocabulary)])[0],
        "batch": last(batch_tokens(vocabulary)),
    }
    differences = {}
    for name, value in found.items():
        expected = theirs[name]
        value = np.asarray(value)[: len(expected)]
        differences[name] = float(np.abs(value - expected).max() / np.abs(expected).max())
    print(json.dumps(differences))


def time(dtype: str, layers: tuple[int, int], steps: int) -> None:
    """Prints seconds by part, and how much was compiled."""
    compiled = collections.Counter()

    def listen(event: str, *_: Any, **info: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled[info["fun_name"]] += 1

    jax.monitoring.register_event_duration_secs_listener(listen)
    generator = Generator(build(dtype, layers), tiny_qwen2_vl().spec, rows=(1, len(GRIDS)))
    generator.stop_ids = np.full(1, -1, np.int32)  # random weights stop anywhere
    generator.forbidden = np.zeros(VOCABULARY, bool)
    sampling = Sampling(max_new_tokens=steps + 1)  # the first comes from the prefill
    seconds: dict[str, float] = {}
    timed = 0  # compiles while the clock ran
    for before, examples in (("", [prompt()]), ("batch ", batch())):
        rung = rung_of(examples)
        packed, names = pack(examples, rung), [str(i) for i in range(len(examples))]
        generator.generate(packed, names, rung=rung, sampling=sampling)  # compiles
        so_far = compiled.total()
        answers, ms = generator.generate(packed, names, rung=rung, sampling=sampling)
        timed += compiled.total() - so_far
        assert all(len(answer.token_ids) == steps + 1 for (answer,) in answers)
        seconds |= {f"{before}{part}": ms[part] / 1e3 for part in ("prefill", "decode")}
        seconds.setdefault("tower", ms["vision"] / 1e3)
    programs = {k: n for k, n in compiled.items() if k.startswith("jit(_")}
    counts = {"compiles": programs, "compiles_while_timed": timed}
    print(json.dumps({"seconds": seconds, "versions": loaded_versions(), **counts}))


if __name__ == "__main__":
    run_side(check, time)

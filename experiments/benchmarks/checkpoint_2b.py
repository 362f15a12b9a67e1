"""A directory of Qwen2-VL-2B's size as on the hub, made on the spot of random values."""

import json
import pathlib
import shutil
import zlib
from typing import Any

import numpy as np
from ml_dtypes import bfloat16
from safetensors.numpy import save_file

from mres_jax.models.key_table import expected_shapes, flatten
from mres_jax.models.registry import FAMILIES
from mres_jax.testing import tiny_tokenizer

SHARD_BYTES = 1e9
TEXT_LAYERS, VISION_LAYERS = 28, 32
CONTROL = {  # ids of Qwen2-VL
    "<|endoftext|>": 151_643,
    "<|im_start|>": 151_644,
    "<|im_end|>": 151_645,
    "<|object_ref_start|>": 151_646,
    "<|object_ref_end|>": 151_647,
    "<|box_start|>": 151_648,
    "<|box_end|>": 151_649,
    "<|quad_start|>": 151_650,
    "<|quad_end|>": 151_651,
    "<|vision_start|>": 151_652,
    "<|vision_end|>": 151_653,
    "<|vision_pad|>": 151_654,
    "<|image_pad|>": 151_655,
    "<|video_pad|>": 151_656,
}


def make_checkpoint(target: pathlib.Path, depth: float) -> dict[str, Any]:
    """Writes a directory, shard by shard; returns its sizes.

    Args:
      target: what stands there is replaced.
      depth: share of the layers.
    """
    shapes, largest = parameter_shapes(depth)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    shards = shard_names(shapes)
    for number, names in enumerate(shards, 1):
        tensors = {name: random_tensor(name, shapes[name]).astype(bfloat16) for name in names}
        save_file(tensors, target / shard_file(number, len(shards)), metadata={"format": "pt"})
    weight_map = {n: shard_file(i, len(shards)) for i, names in enumerate(shards, 1) for n in names}
    total = 2 * sum(int(np.prod(shape)) for shape in shapes.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    beside = {
        "model.safetensors.index.json": index,
        "config.json": config(depth),
        "generation_config.json": {"do_sample": False, "eos_token_id": CONTROL["<|im_end|>"]},
        "preprocessor_config.json": {"min_pixels": 3_136, "max_pixels": 12_845_056},
        "tokenizer.json": tokenizer(),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "clean_up_tokenization_spaces": False,
        },
    }
    for name, content in beside.items():
        (target / name).write_text(json.dumps(content))
    return {"bytes": total, "largest": largest, "tensors": len(shapes), "shards": len(shards)}


def random_tensor(name: str, shape: tuple[int, ...]) -> Any:
    """Values with which the answer depends on every layer: scales about 1, biases about 0."""
    noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
    if len(shape) > 1:
        return noise * np.float32(1.5 / np.prod(shape[1:]) ** 0.5)
    return noise * np.float32(0.3) + np.float32(name.endswith("weight"))


def parameter_shapes(depth: float) -> tuple[dict[str, tuple[int, ...]], int]:
    """Shapes by key of the hub's files, and bytes of the largest stacked parameter of ours."""
    family = FAMILIES["qwen2_vl"]
    parsed = family.config_from_hf(config(depth))
    leaves = flatten(family.skeleton(parsed))
    shapes = expected_shapes(leaves, family.key_table(parsed))
    return shapes, 2 * max(leaf.size for leaf in leaves.values())


def config(depth: float) -> dict[str, Any]:
    """Qwen2-VL-2B's `config.json`, with a share of its layers."""
    return {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "vocab_size": 151_936,
        "hidden_size": 1_536,
        "intermediate_size": 8_960,
        "num_hidden_layers": round(TEXT_LAYERS * depth),
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "max_position_embeddings": 32_768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "eos_token_id": CONTROL["<|im_end|>"],
        "image_token_id": CONTROL["<|image_pad|>"],
        "video_token_id": CONTROL["<|video_pad|>"],
        "vision_start_token_id": CONTROL["<|vision_start|>"],
        "vision_end_token_id": CONTROL["<|vision_end|>"],
        "vision_config": {
            "depth": round(VISION_LAYERS * depth),
            "embed_dim": 1_280,
            "hidden_size": 1_536,
            "num_heads": 16,
            "mlp_ratio": 4,
            "in_chans": 3,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
    }


def tokenizer() -> dict[str, Any]:
    """Bytes and a few words, made-up words up to the size of Qwen2-VL's, its control tokens."""
    content = json.loads(tiny_tokenizer().to_bytes())
    words = content["model"]["vocab"]
    words |= {f"Ġw{i}": i for i in range(len(words), CONTROL["<|endoftext|>"])}
    (first, *_) = content["added_tokens"]
    content["added_tokens"] = [first | {"content": t, "id": i} for t, i in CONTROL.items()]
    return content


def shard_names(shapes: dict[str, tuple[int, ...]]) -> list[list[str]]:
    """Keys by shard, layer after layer."""
    shards: list[list[str]] = [[]]
    size = 0
    for name in sorted(shapes, key=lambda n: [p.rjust(6, "0") for p in n.split(".")]):
        nbytes = 2 * int(np.prod(shapes[name]))
        if size + nbytes > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += nbytes
    return shards


def shard_file(number: int, shards: int) -> str:
    return f"model-{number:05}-of-{shards:05}.safetensors"

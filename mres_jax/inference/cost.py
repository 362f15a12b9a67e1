"""What an answer costs, computed from a model's sizes. FLOPs are 2 per multiply-add.

Matrix products are counted and nothing else: norms, activations, rotary and softmax are left out,
as is usual, and stay under a few per cent at real widths. Every view attends to itself, so the
encoder's attention grows with the sum of squared views, never with the square of a pack.
"""

from collections.abc import Sequence
from typing import Any

from mres_jax.geometry import Grid
from mres_jax.models.qwen2.config import TextConfig
from mres_jax.models.tower_config import TowerConfig
from mres_jax.protocols import Cost


def encoder_flops(config: Any, grids: Sequence[Grid], *, moving: int = 0) -> float:
    """FLOPs from patches to visual tokens at the decoder's width.

    Args:
      config: of the assembled model, with `vision_config` and `text_config`.
      grids: one per view.
      moving: of their patches, those of clips, whose rows hold several frames.
    """
    if hasattr(config, "encoder_flops"):
        return config.encoder_flops([grid.num_patches for grid in grids])
    vision: TowerConfig = config.vision_config
    total = sum(grid.num_patches for grid in grids)
    pairs = sum(vision.attended_pairs(grid) for grid in grids)
    flops = 2 * total * vision.patch_products
    frame = 3 * vision.patch_size**2 * vision.width
    flops += 2 * moving * (vision.temporal_patch_size - 1) * frame
    flops += 4 * vision.width * pairs  # scores and sums of values
    tokens = total // vision.spatial_merge_size**2
    return float(flops + 2 * tokens * (vision.token_products + _projector(config)))


def prefill_flops(config: TextConfig, num_tokens: int) -> float:
    """FLOPs of reading a prompt and scoring the token that follows it."""
    return text_flops(config, [num_tokens], 1)


def relevance_flops(config: TextConfig, num_tokens: int) -> float:
    """FLOPs of a prefill and of its reverse down to the visual tokens.

    The reverse takes every product of weights once, since the weights' own gradients are not asked
    for, and both of attention's twice.
    """
    forward = prefill_flops(config, num_tokens)
    return forward + forward + _attention(config) * num_tokens * (num_tokens + 1) // 2


def decode_flops(config: TextConfig, prompt_tokens: int, new_tokens: int) -> float:
    """FLOPs of generating `new_tokens` after a prefill, which has scored the first of them."""
    steps = max(new_tokens - 1, 0)
    pairs = steps * prompt_tokens + steps * (steps + 1) // 2
    return float(steps * (2 * _layers(config) + _head(config)) + _attention(config) * pairs)


def joint_flops(config: TextConfig, costs: Sequence[Cost]) -> float:
    """FLOPs of all answers to one request, which share all that comes before decoding.

    Args:
      config: of the decoder.
      costs: of the answers, each as if it had been the only one.
    """
    first, *others = costs
    prompt = first.visual_tokens + first.text_tokens
    return first.flops + sum(decode_flops(config, prompt, cost.new_tokens) for cost in others)


def text_flops(config: TextConfig, lengths: Sequence[int], num_scored: int) -> float:
    """FLOPs of the decoder over whole examples, with the vocabulary scored at some positions.

    Args:
      config: of the decoder.
      lengths: tokens of each example.
      num_scored: positions whose scores are needed, in all of them.
    """
    pairs = sum(n * (n + 1) // 2 for n in lengths)
    return float(
        2 * sum(lengths) * _layers(config) + _attention(config) * pairs + num_scored * _head(config)
    )


def _projector(config: Any) -> int:
    """Multiply-adds of one visual token behind the tower."""
    if not hasattr(config, "mm_projector_type"):
        return 0
    out = config.text_config.hidden_size
    return config.mm_hidden_size * out + out * out


def _layers(config: TextConfig) -> int:
    """Multiply-adds of one token in all layers, attention over earlier tokens left out."""
    heads = config.num_attention_heads * config.head_dim
    kv_heads = config.num_key_value_heads * config.head_dim
    size = config.hidden_size
    layer = 2 * size * heads + 2 * size * kv_heads + 3 * size * config.intermediate_size
    return config.num_hidden_layers * layer


def _attention(config: TextConfig) -> int:
    """FLOPs of one query looking at one key, in all layers."""
    return 4 * config.num_hidden_layers * config.num_attention_heads * config.head_dim


def _head(config: TextConfig) -> int:
    """FLOPs of scoring the vocabulary once."""
    return 2 * config.hidden_size * config.vocab_size

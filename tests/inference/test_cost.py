"""FLOPs computed from sizes against the parameters of the models themselves."""

import jax
import numpy as np
from flax import nnx

from mres_jax.data.windows import window_layout
from mres_jax.geometry import Grid
from mres_jax.inference import cost

GRIDS = (Grid(1, 4, 6), Grid(1, 2, 2), Grid(1, 8, 2))  # 24, 4 and 16 patches


def matrix_sizes(module):
    """Entries of every matrix that activations are multiplied with, by name."""
    paths = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(nnx.state(module, nnx.Param)))
    sizes = {}
    for path, leaf in paths:
        if path[-1].key == "kernel":
            sizes[".".join(str(step.key) for step in path)] = leaf.size
    return sizes


def weight_flops(model) -> int:
    """Two per weight and row of the tower and what stands behind it."""
    vision = model.config.vision_config
    per_patch = per_token = 0
    for name, size in matrix_sizes(model.vision).items():
        if name.startswith(("merger", "deepstack")):
            per_token += size
        else:  # a still row meets the sum of the temporal weights
            per_patch += size // (vision.temporal_patch_size if "embed" in name else 1)
    if hasattr(model, "projector"):
        per_token += sum(matrix_sizes(model.projector).values())
    patches = sum(grid.num_patches for grid in GRIDS)
    return 2 * (patches * per_patch + patches // 4 * per_token)


def squares(lengths) -> int:
    return sum(n * n for n in lengths)


def test_encoder_flops_are_two_per_weight_and_row_plus_squared_views(maker):
    model, vision = maker.tiny.model, maker.tiny.model.config.vision_config
    pairs = vision.depth * squares(grid.num_patches for grid in GRIDS)
    found = cost.encoder_flops(model.config, GRIDS)
    assert found == weight_flops(model) + 4 * vision.embed_dim * pairs


def test_windows_cost_their_own_squares_and_deepstack_its_mergers(later):
    model, spec = later.tiny.model, later.tiny.spec
    vision = model.config.vision_config
    whole, inside = squares(grid.num_patches for grid in GRIDS), 0
    layers = vision.depth
    if spec.window_side is not None:
        layers = len(vision.fullatt_block_indexes)
        ids = window_layout(GRIDS, side=spec.window_side, merge_size=2).segment_ids
        inside = squares(np.bincount(ids))
        assert inside < whole
    pairs = layers * whole + (vision.depth - layers) * inside
    found = cost.encoder_flops(model.config, GRIDS)
    assert found == weight_flops(model) + 4 * vision.hidden_size * pairs


def test_rows_of_several_frames_meet_all_temporal_weights(qwen):
    vision = qwen.tiny.model.config.vision_config
    still, moving = (cost.encoder_flops(qwen.tiny.model.config, GRIDS, moving=n) for n in (0, 24))
    assert moving - still == 2 * 24 * 3 * vision.patch_size**2 * vision.embed_dim


def test_prefill_flops_are_two_per_weight_and_token_plus_the_pairs_that_look(maker):
    model, config = maker.tiny.model, maker.tiny.model.config.text_config
    sizes = matrix_sizes(model.text)
    head = 2 * sizes.pop("lm_head.kernel")
    pairs = sum(range(1, 11))
    attention = 4 * config.num_hidden_layers * config.hidden_size * pairs
    assert cost.prefill_flops(config, 10) == 20 * sum(sizes.values()) + attention + head


def test_decoding_costs_what_reading_its_tokens_would_cost_and_a_head_per_token(qwen):
    config = qwen.tiny.model.config.text_config
    head = 2 * config.hidden_size * config.vocab_size
    for prompt, new in ((10, 1), (10, 2), (300, 40)):
        read = cost.prefill_flops(config, prompt + new - 1) - cost.prefill_flops(config, prompt)
        assert cost.decode_flops(config, prompt, new) == read + (new - 1) * head


def test_attention_grows_with_squared_views_and_not_with_the_pack(qwen):
    one = cost.encoder_flops(qwen.tiny.model.config, GRIDS[:1])
    assert cost.encoder_flops(qwen.tiny.model.config, GRIDS[:1] * 7) == 7 * one
    assert np.isclose(cost.encoder_flops(qwen.tiny.model.config, ()), 0)

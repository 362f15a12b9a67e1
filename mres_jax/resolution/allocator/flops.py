"""What an allocator network costs. FLOPs are 2 per multiply-add; matrix products alone."""

from mres_jax.resolution.allocator.config import TOKENS_PER_FRAME, AllocatorConfig


def allocator_flops(config: AllocatorConfig, *, num_frames: int, question_tokens: int) -> float:
    """Returns the FLOPs of one clip, without the eyes."""
    size, tokens = config.hidden_size, num_frames * TOKENS_PER_FRAME
    inner = config.num_heads * config.head_dim
    temporal = config.num_temporal_heads * config.head_dim
    layer = tokens * 4 * size * temporal + tokens * 2 * num_frames * temporal
    if config.spatial_attention:
        layer += tokens * 4 * size * inner + tokens * 2 * TOKENS_PER_FRAME * inner
    layer += tokens * 2 * size * inner + question_tokens * 2 * size * inner  # cross attention
    layer += tokens * 2 * question_tokens * inner
    layer += tokens * 2 * config.ffn_factor * size**2
    enter = tokens * config.frame_size * size + question_tokens * config.question_size * size
    gate = tokens * (size**2 + size // 2)
    relevance = size**2 * (num_frames + 1) + 2 * num_frames * question_tokens * size
    head = num_frames * ((size + 5) * size + size * (size // 2) + size + 2 * size)
    return 2.0 * (enter + config.num_layers * layer + gate + relevance + head)

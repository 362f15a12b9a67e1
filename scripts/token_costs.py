"""Prints what pictures cost under some policies at Qwen2-VL-2B's sizes, for docs/guides/cost.md.

python scripts/token_costs.py     counted from sizes alone: no weights, no device
"""

from mres_jax.data.assemble import view_grid
from mres_jax.geometry import Size
from mres_jax.inference.cost import encoder_flops, prefill_flops
from mres_jax.models.qwen2.config import TextConfig
from mres_jax.models.qwen2_vl.config import Qwen2VLConfig, VisionConfig
from mres_jax.models.registry import FAMILIES
from mres_jax.resolution.cost import visual_tokens
from mres_jax.resolution.policies import parse_policy

POLICIES = ("native", "budget:1024", "budget:256", "scale:0.5", "fixed:448", "tiles")
SIZES = {  # px
    "640 x 480": Size(480, 640),
    "1920 x 1080, a screen": Size(1080, 1920),
    "2480 x 3508, a page at 300 dpi": Size(3508, 2480),
    "4032 x 3024, a photograph": Size(3024, 4032),
    "6000 x 600, a panorama": Size(600, 6000),
}
QUESTION = 30  # tokens of text beside the picture
CONFIG = Qwen2VLConfig(
    vision_config=VisionConfig(depth=32, embed_dim=1_280, num_heads=16, hidden_size=1_536),
    text_config=TextConfig(
        vocab_size=151_936,
        hidden_size=1_536,
        intermediate_size=8_960,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        mrope_section=(16, 24, 24),
    ),
)


def cell(size: Size, policy: str) -> str:
    """Visual tokens; TFLOPs of the encoder + of reading the prompt."""
    spec = FAMILIES["qwen2_vl"].make_spec(CONFIG, lambda token: 0)
    views = parse_policy(policy)([size], "", spec)
    tokens = visual_tokens(views, spec)
    encoder = encoder_flops(CONFIG, [view_grid(view, spec) for view in views])
    decoder = prefill_flops(CONFIG.text_config, tokens + QUESTION)
    return f"{tokens:,}; {encoder / 1e12:.1f} + {decoder / 1e12:.1f}"


def main() -> None:
    """Prints the table."""
    print(f"| picture, px | {' | '.join(f'`{policy}`' for policy in POLICIES)} |")
    print(f"|---|{'---|' * len(POLICIES)}")
    for name, size in SIZES.items():
        print(f"| {name} | {' | '.join(cell(size, policy) for policy in POLICIES)} |")


if __name__ == "__main__":
    main()

"""What an allocator costs beside a 7 B backbone, eyes included, from the sizes of both.

python experiments/2026-11-allocator-cost/run.py [--csv results.csv]

Frames of 1280 x 720 px in pairs of 36 x 20 visual tokens (Qwen2.5-VL's native size), a question of
32 tokens, an answer of 64; the backbone is counted as Qwen2-VL-7B by `inference.cost`.
"""

import argparse
import pathlib

from mres_jax.evaluation.csv_text import records_to_csv
from mres_jax.geometry import Grid
from mres_jax.inference import cost
from mres_jax.inference.eyes import SIDE
from mres_jax.models.qwen2.config import TextConfig
from mres_jax.models.qwen2_vl.config import Qwen2VLConfig, VisionConfig
from mres_jax.resolution.allocator.config import preset
from mres_jax.resolution.allocator.flops import allocator_flops

QUESTION, ANSWER, COLUMNS, ROWS = 32, 64, 36, 20
RETENTIONS = (1.0, 0.5, 0.25, 0.1)


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


def siglip_flops(side: int) -> float:
    """A base SigLIP of 12 layers, 768 wide, on a square frame of patches of 16 px."""
    patches, width, layers = (side // 16) ** 2, 768, 12
    layer = patches * (4 * width**2 + 2 * width * 3072) + 2 * patches**2 * width
    return 2.0 * (layers * layer + patches * 3 * 16**2 * width)


def backbone_flops(config: Qwen2VLConfig, frames: int, retention: float) -> float:
    """Encoder, prefill and decoding of a clip whose pairs are scaled alike."""
    scale = retention**0.5
    rows, columns = (max(1, round(n * scale)) for n in (ROWS, COLUMNS))
    pairs = frames // 2
    tokens = pairs * rows * columns + QUESTION
    return (
        cost.encoder_flops(config, [Grid(1, 2 * rows, 2 * columns)] * pairs)
        + cost.prefill_flops(config.text_config, tokens)
        + cost.decode_flops(config.text_config, tokens, ANSWER)
    )


def main() -> None:
    """Prints shares of the whole, and from how many frames on a clip gains."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--csv", type=pathlib.Path)
    args = parser.parse_args()
    config, network = seven_b(), preset("released_v2")
    eyes = {"SigLIP 512 px": siglip_flops(512), "SigLIP 256 px": siglip_flops(256)}
    tower = cost.encoder_flops(config, [Grid(1, 2 * SIDE, 2 * SIDE)])
    eyes["the backbone's own tower, 224 px"] = tower
    rows = []
    for name, per_frame in eyes.items():
        for frames in (16, 32, 128):
            own = allocator_flops(network, num_frames=frames, question_tokens=QUESTION)
            allocator = frames * per_frame + own
            for retention in RETENTIONS:
                rest = backbone_flops(config, frames, retention)
                rows.append(
                    {
                        "eyes": name,
                        "frames": frames,
                        "retention": retention,
                        "eyes_tflops": round(frames * per_frame / 1e12, 2),
                        "network_tflops": round(own / 1e12, 2),
                        "backbone_tflops": round(rest / 1e12, 1),
                        "share": round(allocator / (allocator + rest), 3),
                        "of_native": round(
                            (allocator + rest) / backbone_flops(config, frames, 1.0), 3
                        ),
                    }
                )
                print(", ".join(f"{k}={v}" for k, v in rows[-1].items()), flush=True)
    if args.csv:
        args.csv.write_bytes(records_to_csv(rows))


if __name__ == "__main__":
    main()

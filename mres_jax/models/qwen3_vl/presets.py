"""What to leave of a Qwen3-VL for a look on a CPU."""

from mres_jax.models.qwen2.presets import SMOKE as DECODER

SMOKE = DECODER | {
    "model.vision_config.depth": "2",
    "model.vision_config.deepstack_visual_indexes": "0",
    "model.vision_config.hidden_size": "32",
    "model.vision_config.intermediate_size": "64",
    "model.vision_config.num_heads": "2",
    "model.vision_config.out_hidden_size": "32",
    "model.text_config.head_dim": "16",
    "model.text_config.mrope_section": "2,3,3",
    "mesh.fsdp": "1",
}

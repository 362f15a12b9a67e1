"""Golden numbers of the released allocator, from its own code with weights that a name decides.

    python tests/golden/resadapt_allocator.py PATH/TO/ResAdapt tests/golden/resadapt_allocator.npz

Needs torch, transformers and einops beside a checkout of github.com/Xnhyacinth/ResAdapt (made with
commit 3816930, torch 2.13, CPU, float32). Nothing of it is copied here: the file holds inputs'
seeds and what came out. The test reads names, weights and inputs from this module, which imports
no torch by itself.
"""

import importlib
import sys
import zlib

import numpy as np

SIZES = {
    "frame_size": 24,
    "question_size": 24,
    "hidden_size": 128,
    "num_layers": 2,
    "num_heads": 2,
    "num_temporal_heads": 1,
    "head_dim": 64,
}
CLIPS = ((5, 7), (1, 3), (5, 4), (8, 9))  # frames and words of each
TOKENS = 64  # of a frame

_LAYER = {
    "spatial.norm": "spatial_attn.norm",
    "spatial.qkv": "spatial_attn.to_qkv",
    "spatial.out": "spatial_attn.to_out",
    "temporal.norm": "temporal_attn.norm",
    "temporal.qkv": "temporal_attn.to_qkv",
    "temporal.out": "temporal_attn.to_out",
    "cross.norm": "cross_attn.norm",
    "cross.context_norm": "cross_attn.context_norm",
    "cross.q": "cross_attn.to_q",
    "cross.kv": "cross_attn.to_kv",
    "cross.out": "cross_attn.to_out",
    "norm": "ffn.0",
    "up": "ffn.1",
    "down": "ffn.4",
}
MODULES = {  # ours -> theirs
    "frame_proj": "vlp",
    "question_proj": "mlp",
    **{
        f"layers.{i}.{ours}": f"scorer.layers.{i}.{theirs}"
        for i in range(SIZES["num_layers"])
        for ours, theirs in _LAYER.items()
    },
    "pooling.norm": "scorer.patch_norm",
    "pooling.up": "scorer.pool_gate.0",
    "pooling.down": "scorer.pool_gate.2",
    "pooling.question_proj": "scorer.relevance_scorer.text_proj",
    "pooling.frame_proj": "scorer.relevance_scorer.frame_proj",
    "pooling.pooled_norm": "scorer.pooled_norm",
    "pooling.fuse": "scorer.info_proj",
    "head.norm": "scorer.regression_head.net.0",
    "head.up": "scorer.regression_head.net.1",
    "head.down": "scorer.regression_head.net.3",
    "head.skip": "scorer.regression_head.skip",
}


def weight(name, shape):
    """Values of a parameter, in torch's layout: around 1 for scales of norms, else around 0."""
    draw = np.random.default_rng(zlib.crc32(name.encode()))
    scale_of_norm = len(shape) == 1 and name.endswith("weight")
    gain = 6.0 if ".skip" in name else 1.2  # what frames get is to differ
    spread = 0.2 if len(shape) == 1 else gain / np.sqrt(shape[-1])
    return (float(scale_of_norm) + spread * draw.normal(size=shape)).astype(np.float32)


def inputs():
    """Features of the clips: `(frames [t 64 d], question [q e])` each."""
    draw = np.random.default_rng(7)
    clips = []
    for frames, words in CLIPS:
        still = draw.normal(size=(1, TOKENS, SIZES["frame_size"]))
        moving = draw.normal(size=(frames, TOKENS, SIZES["frame_size"]))
        question = draw.normal(size=(words, SIZES["question_size"]))
        clips.append(((still + 0.7 * moving).astype(np.float32), question.astype(np.float32)))
    return clips


def main(repository, target):
    """Runs the released network and writes what it says."""
    sys.path.insert(0, repository)
    import torch

    theirs = importlib.import_module("resadapt.allocator.aznet_smol_v2")
    config = importlib.import_module("resadapt.allocator.smol_config").SmolAllocatorConfig(
        vision_hidden_size=SIZES["frame_size"],
        out_hidden_size=SIZES["question_size"],
        llm_hidden_size=SIZES["question_size"],
        output_dim=SIZES["hidden_size"],
        self_depth=SIZES["num_layers"],
        num_heads=SIZES["num_heads"],
        dim_head=SIZES["head_dim"],
        spatial_merge_size=1,
        max_frames=8,
    )
    model = theirs.RegressionHeadAllocatorSmol(config).eval()
    state = {k: torch.from_numpy(weight(k, tuple(v.shape))) for k, v in model.state_dict().items()}
    model.load_state_dict(state)
    clips = inputs()
    words = max(len(question) for _, question in clips)
    text = torch.zeros(len(clips), words, SIZES["question_size"])
    mask = torch.zeros(len(clips), words, dtype=torch.bool)
    for row, (_, question) in enumerate(clips):
        text[row, : len(question)] = torch.from_numpy(question)
        mask[row, : len(question)] = True
    grid = torch.tensor([[len(frames), 8, 8] for frames, _ in clips])
    visual = [torch.from_numpy(frames).reshape(-1, SIZES["frame_size"]) for frames, _ in clips]
    scores = []
    model.scorer.regression_head.register_forward_hook(
        lambda module, given, out: scores.append((given[0].clone(), out.clone()))
    )
    options = {"visual_per_sample": [1] * len(clips), "text_features": text, "text_mask": mask}
    with torch.no_grad():
        _, scales, _, valid = model(visual, grid, eval_mode=True, **options)
        actions = torch.linspace(0.02, 0.98, valid.numel()).reshape(valid.shape)
        _, _, logprobs, _ = model(
            visual, grid, eval_mode=False, actions=actions, scale_mask=valid.bool(), **options
        )
    valid = valid.bool()
    names = sorted(model.state_dict())
    ours = sum(v.numel() for v in model.state_dict().values())
    np.savez(
        target,
        scales=scales[valid].numpy(),
        actions=actions[valid].numpy(),
        logprobs=logprobs[valid].numpy(),
        features_of_last_group=scores[-1][0].numpy(),
        names=np.array(names),
        num_parameters=ours,
    )
    print(f"scales {scales[valid].min():.3f} to {scales[valid].max():.3f}; {ours} parameters")


if __name__ == "__main__":
    main(*sys.argv[1:])

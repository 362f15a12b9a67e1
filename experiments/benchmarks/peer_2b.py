"""The side of `transformers` in transformers_2b.py, and the job that both sides do."""

import json
import pathlib
from collections.abc import Iterator

import numpy as np
from measure import loaded_versions, run_side, timed

PARTS = ("tower", "prefill", "decode", "batch prefill", "batch decode")
GRIDS = ((32, 40), (24, 32), (24, 24), (20, 24), (18, 22), (16, 16), (8, 16), (6, 10))
NUM_TOKENS = 1_000
ASKED = 8  # tokens of text behind each picture, where each has a prompt of its own
PATCH, MERGE, FRAMES = 14, 2, 2
VOCABULARY = 151_936
CHECKED = {"layers": (2, 2), "vocabulary": 2_048}  # of the comparison with the same weights
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def pixels() -> np.ndarray:
    """`uint8 [p 588]`: rows of all patches in block order, one frame, channels slowest."""
    num_patches = sum(rows * columns for rows, columns in GRIDS)
    return np.random.default_rng(0).integers(0, 256, (num_patches, 3 * PATCH**2), np.uint8)


def tokens(vocabulary: int) -> np.ndarray:
    """`int32 [t]`, text."""
    return np.random.default_rng(1).integers(0, vocabulary // 2, NUM_TOKENS).astype(np.int32)


def ragged() -> np.ndarray:
    """`int64 [8]`, tokens of a prompt about each picture."""
    return np.array([rows * columns // MERGE**2 + ASKED for rows, columns in GRIDS])


def batch_tokens(vocabulary: int) -> list[np.ndarray]:
    """Of the eight prompts, `int32 [t]` each."""
    draw = np.random.default_rng(3)
    return [draw.integers(0, vocabulary // 2, n).astype(np.int32) for n in ragged()]


def tiles(size: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Where to put what: a block of normal numbers over and over; drawing all takes minutes."""
    block = np.random.default_rng(2).normal(0, 0.02, 1 << 20).astype(np.float32)
    for start in range(0, size, len(block)):
        yield slice(start, start + len(block)), block[: size - start]


def build(dtype: str, layers: tuple[int, int], vocabulary: int):
    """The model, each layer with memory of its own."""
    import torch
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    torch.set_grad_enabled(False)
    config = Qwen2VLConfig(
        vision_config=dict(depth=layers[0], embed_dim=1280, hidden_size=1536, num_heads=16),
        text_config=dict(
            hidden_size=1536,
            intermediate_size=8960,
            num_hidden_layers=layers[1],
            num_attention_heads=12,
            num_key_value_heads=2,
            rms_norm_eps=1e-6,
            vocab_size=vocabulary,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [16, 24, 24],
            },
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
        ),
        image_token_id=vocabulary - 1,
        video_token_id=vocabulary - 2,
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        empty = Qwen2VLForConditionalGeneration._from_config(config, attn_implementation="sdpa")
    state = {}
    for name, leaf in empty.state_dict().items():
        flat = torch.ones(leaf.numel(), dtype=getattr(torch, dtype))
        if "norm" not in name and "ln_q" not in name:
            for place, block in tiles(leaf.numel()):
                flat[place] = torch.from_numpy(block).to(flat.dtype)
        state[name] = flat.view(leaf.shape)
    empty.load_state_dict(state, assign=True)
    empty.tie_weights()
    tower, decoder = empty.model.visual, empty.model.language_model
    tower.rotary_pos_emb = type(tower.rotary_pos_emb)(tower.config)  # no state holds its buffers
    decoder.rotary_emb = type(decoder.rotary_emb)(decoder.config)
    assert not any(x.is_meta for x in (*empty.parameters(), *empty.buffers()))
    return empty.eval()


def inputs(dtype: str):
    """Normalised rows of two equal frames, and the grids."""
    import torch

    rows = pixels().reshape(-1, 3, 1, PATCH**2).astype(np.float32)
    shape = (1, 3, 1, 1)
    rows = (rows / 255 - np.reshape(MEAN, shape)) / np.reshape(STD, shape)
    rows = np.repeat(rows, FRAMES, axis=2).reshape(len(rows), -1).astype(np.float32)
    grids = torch.tensor([[1, *grid] for grid in GRIDS])
    return torch.from_numpy(rows).to(getattr(torch, dtype)), grids


def check(folder: pathlib.Path) -> None:
    """Writes a small model and what it says."""
    import torch

    model = build("float32", **CHECKED)
    model.save_pretrained(folder)
    rows, grids = inputs("float32")
    ids = torch.from_numpy(tokens(CHECKED["vocabulary"])).long()[None]
    logits = model(input_ids=ids, logits_to_keep=1).logits[0, -1]
    batch = model(**padded(CHECKED["vocabulary"]), logits_to_keep=1).logits[:, -1]
    visual = _visual(model, rows, grids).numpy()
    np.savez(folder / "theirs.npz", tower=visual, prefill=logits, batch=batch)


def padded(vocabulary: int) -> dict:
    """The eight prompts padded on the left to the longest, as `generate` takes them."""
    import torch

    longest = int(ragged().max())
    ids, mask = torch.zeros(2, len(GRIDS), longest, dtype=torch.long)
    for row, some in enumerate(batch_tokens(vocabulary)):
        ids[row, longest - len(some) :] = torch.from_numpy(some)
        mask[row, longest - len(some) :] = 1
    places = (mask.cumsum(-1) - 1).clamp(min=0)
    return {"input_ids": ids, "attention_mask": mask, "position_ids": places.expand(3, -1, -1)}


def _visual(model, rows, grids):
    out = model.model.visual(rows, grid_thw=grids)
    return out if hasattr(out, "numpy") else out.pooler_output


def time(dtype: str, layers: tuple[int, int], steps: int) -> None:
    """Prints seconds by part."""
    import torch

    model = build(dtype, layers, VOCABULARY)
    rows, grids = inputs(dtype)
    ids = torch.from_numpy(tokens(VOCABULARY)).long()[None]

    def prefill():
        return model(input_ids=ids, use_cache=True, logits_to_keep=1)

    def decode(out):
        cache = out.past_key_values
        for _ in range(steps):
            token = out.logits[:, -1].argmax(-1, keepdim=True)
            place = torch.full((3, 1, 1), cache.get_seq_length())
            out = model(input_ids=token, past_key_values=cache, position_ids=place, use_cache=True)
        assert torch.isfinite(out.logits).all()

    batch = padded(VOCABULARY)

    def prefill_batch():
        return model(**batch, use_cache=True, logits_to_keep=1)

    def decode_batch(out):
        mask, place = batch["attention_mask"], batch["position_ids"][..., -1:]
        for _ in range(steps):
            token = out.logits[:, -1].argmax(-1, keepdim=True)
            mask, place = torch.nn.functional.pad(mask, (0, 1), value=1), place + 1
            out = model(
                input_ids=token,
                attention_mask=mask,
                past_key_values=out.past_key_values,
                position_ids=place,
                use_cache=True,
            )
        assert torch.isfinite(out.logits).all()

    _visual(model, rows, grids)
    seconds = {"tower": timed(lambda: _visual(model, rows, grids))}
    prefill()
    seconds["prefill"] = timed(prefill)
    filled = [prefill()]
    seconds["decode"] = timed(lambda: decode(filled.pop()))
    prefill_batch()
    seconds["batch prefill"] = timed(prefill_batch)
    filled = [prefill_batch()]
    seconds["batch decode"] = timed(lambda: decode_batch(filled.pop()))
    print(json.dumps({"seconds": seconds, "versions": loaded_versions()}))


if __name__ == "__main__":
    run_side(check, time)

"""M-RoPE positions of prompts with pictures and clips, against those of `transformers`."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from mres_jax.data.positions import ClipGrids, Run, rotary_positions
from mres_jax.geometry import Grid

pytestmark = pytest.mark.parity

MERGE, PICTURE, CLIP = 2, 7, 8
TOKENS_PER_SECOND = 2
TEXT = {
    "vocab_size": 16,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
}
IDS = {"image_token_id": PICTURE, "video_token_id": CLIP}


class Prompt(NamedTuple):
    """One prompt on both sides."""

    runs: list[Run]
    kinds: list[int]  # of the runs: 0 text, 1 picture, 2 clip
    seconds: list[float]  # per view, of each clip


def random_grid(rng) -> tuple[int, int]:
    rows, columns = rng.integers(1, 12, 2)
    return MERGE * int(rows), MERGE * int(columns)


def random_prompt(rng, *, blocks: bool) -> Prompt:
    """Text, then up to five pictures and clips of any shape with text behind each."""
    runs: list[Run] = [int(rng.integers(1, 9))]
    kinds, seconds = [0], []
    for _ in range(rng.integers(0, 6)):
        h, w = random_grid(rng)
        if rng.integers(2):
            runs, kinds = [*runs, Grid(1, h, w)], [*kinds, 1]
        else:
            views = int(rng.integers(1, 30))
            seconds.append(float(rng.uniform(0.05, 4)))
            if blocks:  # the text of the time stands before each view
                for i in range(views):
                    runs += [*([int(rng.integers(1, 9))] if i else []), Grid(1, h, w)]
                    kinds += [*([0] if i else []), 2]
            else:
                step = TOKENS_PER_SECOND * seconds[-1]
                runs.append(ClipGrids((Grid(1, h, w),) * views, step))
                kinds.append(2)
        runs, kinds = [*runs, int(rng.integers(1, 9))], [*kinds, 0]
    return Prompt(runs, kinds, seconds)


def length(run: Run) -> int:
    return run if isinstance(run, int) else run.num_visual_tokens(MERGE)


def theirs(model: Any, prompt: Prompt, *, with_seconds: bool) -> tuple[Any, Any]:
    torch = pytest.importorskip("torch")
    kinds = np.concatenate(
        [np.full(length(run), kind) for run, kind in zip(prompt.runs, prompt.kinds, strict=True)]
    )
    pictures = [r for r, kind in zip(prompt.runs, prompt.kinds, strict=True) if kind == 1]
    clips = [
        (len(run.grids), *run.grids[0][1:]) if isinstance(run, ClipGrids) else tuple(run)
        for run, kind in zip(prompt.runs, prompt.kinds, strict=True)
        if kind == 2 and not isinstance(run, int)
    ]
    more = {"second_per_grid_ts": torch.tensor(prompt.seconds)} if with_seconds else {}
    return model.get_rope_index(
        input_ids=torch.tensor(np.choose(kinds, [0, PICTURE, CLIP]))[None],
        mm_token_type_ids=torch.tensor(kinds)[None],
        image_grid_thw=torch.tensor(pictures) if pictures else None,
        video_grid_thw=torch.tensor(clips) if clips else None,
        **more,
    )


def compare(model: Any, rule: str, prompt: Prompt, *, with_seconds: bool = False) -> None:
    expected, deltas = theirs(model, prompt, with_seconds=with_seconds)
    positions = rotary_positions(rule, prompt.runs, merge_size=MERGE)
    np.testing.assert_array_equal(positions, expected[:, 0].numpy())
    assert positions.max() + 1 - positions.shape[1] == deltas.item()


def test_positions_and_delta_of_qwen2_vl_over_200_prompts():
    transformers = pytest.importorskip("transformers")
    vision = {"depth": 1, "embed_dim": 8, "num_heads": 1, "hidden_size": 8}
    config = transformers.Qwen2VLConfig(text_config=TEXT, vision_config=vision, **IDS)
    model, rng = transformers.Qwen2VLModel(config), np.random.default_rng(0)
    for _ in range(200):
        compare(model, "mrope", random_prompt(rng, blocks=False))


def test_positions_and_delta_of_qwen2_5_vl_over_200_prompts():
    """Time in seconds; steps that fall on an edge are rounded as theirs."""
    transformers = pytest.importorskip("transformers")
    vision = {
        "depth": 1,
        "hidden_size": 8,
        "num_heads": 1,
        "intermediate_size": 8,
        "out_hidden_size": 8,
        "tokens_per_second": TOKENS_PER_SECOND,
    }
    config = transformers.Qwen2_5_VLConfig(text_config=TEXT, vision_config=vision, **IDS)
    model, rng = transformers.Qwen2_5_VLModel(config), np.random.default_rng(1)
    for _ in range(200):
        compare(model, "mrope_seconds", random_prompt(rng, blocks=False), with_seconds=True)


def test_positions_and_delta_of_qwen3_vl_over_200_prompts():
    """Their grids of clips are split into views of one time step before positions are counted."""
    transformers = pytest.importorskip("transformers")
    vision = {
        "depth": 1,
        "hidden_size": 8,
        "num_heads": 1,
        "intermediate_size": 8,
        "out_hidden_size": 8,
        "deepstack_visual_indexes": [0],
    }
    text = {**TEXT, "head_dim": 8}
    config = transformers.Qwen3VLConfig(text_config=text, vision_config=vision, **IDS)
    model, rng = transformers.Qwen3VLModel(config), np.random.default_rng(2)
    for _ in range(200):
        compare(model, "mrope_blocks", random_prompt(rng, blocks=True))

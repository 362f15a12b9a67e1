"""M-RoPE positions of prompts with pictures, against `transformers`."""

import numpy as np
import pytest

from mres_jax.data.positions import rotary_positions
from mres_jax.geometry import Grid

pytestmark = pytest.mark.parity

MERGE, PLACEHOLDER = 2, 7


def random_runs(rng):
    """Text, then up to five pictures of any shape with text behind each, as in the template."""
    runs = [int(rng.integers(1, 9))]
    for _ in range(rng.integers(0, 6)):
        rows, columns = rng.integers(1, 12, 2)
        runs += [Grid(1, MERGE * int(rows), MERGE * int(columns)), int(rng.integers(1, 9))]
    return runs


TOWERS = {
    "Qwen2VL": {"embed_dim": 8, "hidden_size": 8},
    "Qwen2_5_VL": {"hidden_size": 8, "out_hidden_size": 8, "fullatt_block_indexes": [0]},
    "Qwen3VL": {"hidden_size": 8, "out_hidden_size": 8, "deepstack_visual_indexes": [0]},
}


@pytest.fixture(scope="module", params=TOWERS)
def model(request):
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{request.param}Config")(
        text_config={
            "vocab_size": 16,
            "hidden_size": 8,
            "intermediate_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
        },
        vision_config={"depth": 1, "num_heads": 1, **TOWERS[request.param]},
        image_token_id=PLACEHOLDER,
        video_token_id=PLACEHOLDER + 1,
    )
    return getattr(transformers, f"{request.param}Model")(config)


def test_mrope_positions_and_delta_over_200_prompts(model):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    for _ in range(200):
        runs = random_runs(rng)
        visual = np.concatenate(
            [
                np.full(run.num_visual_tokens(MERGE) if isinstance(run, Grid) else run, i % 2)
                for i, run in enumerate(runs)
            ]
        )
        grids = [run for run in runs if isinstance(run, Grid)]
        expected, deltas = model.get_rope_index(
            input_ids=torch.tensor(np.where(visual, PLACEHOLDER, 0))[None],
            mm_token_type_ids=torch.tensor(visual)[None],
            image_grid_thw=torch.tensor(grids) if grids else None,
        )
        positions = rotary_positions("mrope", runs, merge_size=MERGE)
        np.testing.assert_array_equal(positions, expected[:, 0].numpy())
        assert positions.max() + 1 - positions.shape[1] == deltas.item()

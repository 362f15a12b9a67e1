"""A model learns to answer about clips in a file of rows."""

import json

import jax
import numpy as np
import pytest

from mres_jax.config import OptimizerConfig, Rows
from mres_jax.data.types import Rung
from mres_jax.models.registry import FAMILIES
from mres_jax.testing import tiny_config, tiny_run
from mres_jax.testing.clips import write_video
from mres_jax.training.dry_run import dry_run
from mres_jax.training.input.documents import document_tokenizer
from mres_jax.training.input.sources import open_data
from mres_jax.training.loop import train

pytest.importorskip("av", reason="PyAV reads video files")
TOKENIZER = document_tokenizer()
SIDE = 32


@pytest.fixture(autouse=True)
def promotion_as_optax_needs_it():
    with jax.numpy_dtype_promotion("standard"):
        yield


def moving_bar(to_the_right: bool) -> list[np.ndarray]:
    """Eight frames of a bar that crosses the picture: one frame alone does not tell whither."""
    frames = np.zeros((8, SIDE, SIDE, 3), np.uint8)
    for i, frame in enumerate(frames):
        start = 4 * (i if to_the_right else 7 - i)
        frame[:, start : start + 4] = 255
    return list(frames)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two videos and two rows about each, and a row of text."""
    folder = tmp_path_factory.mktemp("clips")
    rows = [{"id": "text", "question": "what is red", "answer": "red"}]
    for name, answer in (("right", "red"), ("left", "blue")):
        write_video(folder / f"{name}.mkv", moving_bar(name == "right"), fps=4)
        asked = {"video": f"{name}.mkv", "question": "what colour is it", "answer": answer}
        rows += [{"id": f"{name}-{i}", **asked} for i in range(2)]
    (folder / "rows.json").write_text(json.dumps(rows))
    return folder


def clips_run(folder, tmp_path, *, family: str, **changes):
    data = Rows(path=str(folder / "rows.json"), images=str(folder), fps=4.0)
    rung = Rung(max_patches=512, max_tokens=512, max_views=16, max_examples=8)
    return tiny_run(
        tmp_path / "run",
        model=tiny_config(family, TOKENIZER),
        data=(data,),
        ladder=(rung,),
        policies={"budget:16": 1.0},
        aux_loss_weight=0.0,
        **changes,
    )


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_packs_of_a_run_hold_its_clips_and_mark_what_is_still(folder, tmp_path, family):
    run = clips_run(folder, tmp_path, family=family)
    spec = FAMILIES[family].make_spec(run.model, TOKENIZER.token_id)
    epoch = open_data(run, spec, TOKENIZER)(0)
    (fed,) = [epoch[place] for place in range(len(epoch))]
    assert not fed.bad
    assert len(fed.members) == 5
    patches = fed.pack.patch_segment_ids > 0
    assert fed.pack.patches.shape[1] == 2 * 3 * spec.patch_size**2
    np.testing.assert_array_equal(fed.pack.still, ~patches)  # all that is seen moves
    assert fed.pack.patch_segment_ids.max() == 4 * 4  # four clips of four pairs of frames


@pytest.mark.slow
def test_a_short_run_learns_which_way_a_bar_moves(folder, tmp_path):
    """Frames of both videos are the same ones, so only their order tells."""
    run = clips_run(
        folder,
        tmp_path,
        family="qwen2_vl",
        steps=60,
        optimizer=OptimizerConfig(learning_rate=5e-3),
    )
    assert dry_run(run).examples == 5
    train(run, log=lambda line: None)
    rows = [json.loads(x) for x in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[0] > 3
    # Who knows the words but not the way is wrong in half of what differs: ln 2 at one token.
    assert losses[-1] < 0.05

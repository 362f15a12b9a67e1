"""A run goes on where it stopped, bit for bit, and says in one line why it cannot."""

import dataclasses
import itertools
import json
import os
import shutil
import signal

import jax
import numpy as np
import pytest
from flax import nnx

from mres_jax.config import CheckpointConfig, Documents, OptimizerConfig
from mres_jax.data.types import Rung
from mres_jax.errors import CheckpointError, ConfigError, MresError, RunError
from mres_jax.testing import tiny_run
from mres_jax.training import learner
from mres_jax.training.loop import train


def losses(path) -> list[float]:
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows]


def weights(trained) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(nnx.state(trained.model, nnx.Param))]


def quiet(line: str) -> None:
    del line


@pytest.mark.parametrize("weight", [0.0, pytest.param(1.0, marks=pytest.mark.slow)])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, weight):
    whole = train(tiny_run(tmp_path / "whole", aux_loss_weight=weight), log=quiet)

    def stop_after_second(line: str) -> None:
        if line.startswith("step     2"):
            os.kill(os.getpid(), signal.SIGTERM)

    parts = CheckpointConfig(dir=str(tmp_path / "parts"))
    run = tiny_run(tmp_path / "parts", checkpoint=parts, aux_loss_weight=weight)
    first = train(run, log=stop_after_second)
    assert 2 <= first.step < 4
    second = train(run, log=quiet)
    assert second.step == whole.step == 4
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    for a, b in zip(weights(whole), weights(second), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"policies": {"native": 3.0, "scale:0.5": 1.0}}, r"policies.scale:0.5: absent -> 1.0"),
        pytest.param({"policies": {"native": 3}}, None, marks=pytest.mark.slow),  # 3.0, the same
        pytest.param({"fill": 0}, "fill: -1 -> 0", marks=pytest.mark.slow),
        pytest.param({"seed": 8}, "seed: 0 -> 8", marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_run_goes_on_with_a_new_epoch_if_its_packs_would_differ(tmp_path, changes, said):
    run = tiny_run(tmp_path, steps=1, policies={"native": 3.0})
    train(run, log=quiet)
    lines: list[str] = []
    longer = dataclasses.replace(run, schedule=dataclasses.replace(run.schedule, num_steps=2))
    train(dataclasses.replace(longer, **changes), log=lines.append)
    assert [line for line in lines if "begins a new epoch" in line] == (
        [f"{run.name}: other data than before ({said}): begins a new epoch"] if said else []
    )
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == ([0, 1] if said else [0, 0])


@pytest.mark.slow
def test_a_run_starts_from_the_model_of_another_and_from_nothing_else_of_it(tmp_path):
    first = train(tiny_run(tmp_path / "a", steps=2), log=quiet)
    at_rest = OptimizerConfig(learning_rate=1e-30)
    start = tiny_run(tmp_path / "b", steps=1, optimizer=at_rest, aux_loss_weight=0.0)
    second = train(dataclasses.replace(start, init=str(tmp_path / "a" / "checkpoints")), log=quiet)
    assert second.step == 1
    for a, b in zip(weights(first), weights(second), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_directory_with_another_model_s_run_is_refused_with_the_difference(tmp_path):
    run = tiny_run(tmp_path / "a", steps=1)
    train(run, log=quiet)
    text = dataclasses.replace(run.model.text_config, hidden_size=32)
    other = dataclasses.replace(run, model=dataclasses.replace(run.model, text_config=text))
    before = (tmp_path / "a" / "run.json").read_bytes()
    with pytest.raises(ConfigError, match=r"hidden_size: 16 -> 32.*checkpoint\.dir"):
        train(other, log=quiet)
    assert (tmp_path / "a" / "run.json").read_bytes() == before


@pytest.mark.slow
def test_a_run_needs_what_it_started_from_only_once_and_keeps_to_it(tmp_path):
    first = train(tiny_run(tmp_path / "a", steps=2), log=quiet)
    start = tiny_run(tmp_path / "b", steps=2, init=str(tmp_path / "a" / "checkpoints"))
    train(start, log=quiet)
    with pytest.raises(ConfigError, match=r"init: '.*a/checkpoints' -> None"):
        train(dataclasses.replace(start, init=None), log=quiet)
    shutil.rmtree(tmp_path / "a")
    again = train(start, log=quiet)  # its steps are done
    assert again.step == 2
    assert again.tokenizer.to_bytes() == first.tokenizer.to_bytes()


def test_a_damaged_step_is_passed_over_only_if_the_run_says_so(tmp_path):
    run = tiny_run(
        tmp_path / "a", steps=2, checkpoint=CheckpointConfig(dir=str(tmp_path / "a"), every_steps=1)
    )
    train(run, log=quiet)
    newest = tmp_path / "a" / "checkpoints" / "step_00000002"
    file = max((f for f in newest.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"Step 1 stands before it.*checkpoint\.fallback=true"
    ):
        train(run, log=quiet)
    allowed = dataclasses.replace(run.checkpoint, fallback=True)
    with pytest.warns(UserWarning, match="Taking step 1 instead"):
        assert train(dataclasses.replace(run, checkpoint=allowed), log=quiet).step == 2


@pytest.mark.slow
def test_a_run_goes_on_with_the_tokenizer_of_a_sound_step_alone(tmp_path):
    run = tiny_run(
        tmp_path / "a", steps=2, checkpoint=CheckpointConfig(dir=str(tmp_path / "a"), every_steps=1)
    )
    file = tmp_path / "a" / "checkpoints" / "step_00000002" / "assets" / "tokenizer.json"
    sound = train(run, log=quiet).tokenizer.to_bytes()
    place = sound.index(b"invoice")  # one bit makes it another word, or no JSON at all
    allowed = dataclasses.replace(run.checkpoint, fallback=True)
    for spoiled in (sound[:place] + b"h" + sound[place + 1 :], b"z" + sound[1:]):
        file.write_bytes(spoiled)
        message = r"step_00000002: file assets/tokenizer\.json: crc32.* Step 1 stands before it"
        with pytest.raises(CheckpointError, match=message):
            train(run, log=quiet)
        with pytest.warns(UserWarning, match="Taking step 1 instead"):
            again = train(dataclasses.replace(run, checkpoint=allowed), log=quiet)
        assert again.tokenizer.to_bytes() == sound == file.read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policies": {"natve": 1.0}}, r"unknown policy 'natve'"),
        ({"policies": {"fixed:100000": 1.0}}, r"max_pixels"),
        (
            {"ladder": (Rung(max_patches=1_000, max_tokens=512, max_views=8, max_examples=8),)},
            r"max_patches=1000 is not a multiple of 16",
        ),
        (
            {"ladder": (Rung(max_patches=16, max_tokens=512, max_views=8, max_examples=8),)},
            r"^run: conversation \d+ of epoch 0 about documents needs \d+ patches, but max_pa",
        ),
        (
            {"data": (Documents(kinds={"page": 1.0}, questions={"sc": 1.0}),)},
            r"nothing to ask: no question of type sc",
        ),
    ],
)
def test_what_cannot_be_trained_on_is_refused_before_anything_is_written(
    tmp_path, changes, message
):
    with pytest.raises(MresError, match=message):
        train(tiny_run(tmp_path / "a", **changes), log=quiet)
    assert not (tmp_path / "a").exists()


def test_no_checkpoint_to_start_from_is_named(tmp_path):
    run = dataclasses.replace(tiny_run(tmp_path / "a"), init=str(tmp_path / "nowhere"))
    with pytest.raises((ConfigError, CheckpointError), match="nowhere"):
        train(run, log=quiet)
    assert not (tmp_path / "a").exists()


@pytest.mark.slow
def test_steps_skipped_in_a_row_end_the_run_with_their_numbers_and_the_cure(tmp_path):
    # AdamW's update is bounded by the rate, whatever the gradient
    optimizer = OptimizerConfig(name="adamw", learning_rate=1e30)
    checkpoint = CheckpointConfig(dir=str(tmp_path / "a"), every_steps=3)
    run = tiny_run(
        tmp_path / "a", optimizer=optimizer, checkpoint=checkpoint, log_every=1_000, max_skipped=2
    )
    message = r"steps 3 to 4 were skipped \(loss (nan|inf).*none was saved\. Lower optimizer\.learn"
    with pytest.raises(RunError, match=message):
        train(run, log=quiet)
    assert not list((tmp_path / "a" / "checkpoints").glob("step_*"))  # one was due


def test_a_step_that_is_not_finite_is_skipped_named_and_counted(tmp_path, monkeypatch):
    steps, plain = itertools.count(1), learner.shares

    def spoilt(packs, average):
        shares = plain(packs, average)
        if next(steps) != 2:
            return shares
        return [share._replace(token=np.float32(np.nan)) for share in shares]

    monkeypatch.setattr(learner, "shares", spoilt)
    lines = []
    run = tiny_run(tmp_path / "a", accumulation=2, label_mask="released", loss_average="pack")
    trained = train(run, log=lines.append)
    assert trained.step == 4
    assert [line for line in lines if "skipped:" in line] == [
        "step     2 skipped: loss nan, gradient norm nan"
    ]
    rows = [json.loads(line) for line in (tmp_path / "a/metrics.jsonl").read_text().splitlines()]
    assert [row["skipped"] for row in rows] == [0, 1, 0, 0]
    assert ["loss" in row for row in rows] == [True, False, True, True]
    assert all(np.isfinite(x).all() for x in weights(trained))


def test_a_tokenizer_that_does_not_fit_the_model_is_refused(tmp_path):
    run = tiny_run(tmp_path / "a")
    run = dataclasses.replace(run, model=dataclasses.replace(run.model, image_token_id=3))
    with pytest.raises(ConfigError, match=r"<\|image_pad\|> at .* image_token_id=3"):
        train(run, log=quiet)

"""A run is tested on what it never trains on, and trains the same as without."""

import dataclasses
import json
import os
import pathlib
import signal

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from mres_jax.config import CheckpointConfig, Documents, Evaluate, Rows
from mres_jax.data.documents import write_set
from mres_jax.data.packing import example_slices
from mres_jax.data.rows import open_rows
from mres_jax.errors import ConfigError
from mres_jax.models.nativeres_llava import processor
from mres_jax.models.registry import load_model
from mres_jax.testing import tiny_run
from mres_jax.training.evaluator import Evaluator
from mres_jax.training.input.documents import document_tokenizer
from mres_jax.training.input.held_out import open_held_out
from mres_jax.training.input.sources import open_sources
from mres_jax.training.loop import train
from mres_jax.training.metrics import read_rows

EVALUATE = Evaluate(every_steps=2, num_packs=1, num_questions=2, num_samples=1, max_new_tokens=4)
TOKENIZER = document_tokenizer()
UNTIMED = ("step", "loss", "accuracy", "grad_norm", "learning_rate", "epoch")


@pytest.fixture(autouse=True)
def promotion_as_optax_needs_it():
    with jax.numpy_dtype_promotion("standard"):
        yield


def quiet(line: str) -> None:
    del line


def curve(path) -> list[dict]:
    rows = read_rows(path / "metrics.jsonl")
    return [{name: row[name] for name in UNTIMED} for row in rows]


def weights(trained) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(nnx.state(trained.model, nnx.Param))]


def spec_of(run):
    return processor.make_spec(run.model, TOKENIZER.token_id)


def rows_run(tmp_path, **changes):
    folder = write_set(tmp_path / "set", 3, 6, bins=[("B", "NM")]).parent
    changes = {"path": str(folder / "rows.jsonl"), "images": str(folder)} | changes
    return tiny_run(tmp_path / "run", data=(Rows(**changes),), aux_loss_weight=0.0)


@pytest.fixture(scope="module")
def tested(tmp_path_factory):
    """A run with evaluations, and its directory."""
    folder = tmp_path_factory.mktemp("tested")
    with jax.numpy_dtype_promotion("standard"):
        return folder, train(tiny_run(folder, evaluate=EVALUATE), log=quiet)


@pytest.mark.slow
def test_evaluation_changes_nothing_of_training(tested, tmp_path):
    folder, tested = tested
    plain = train(tiny_run(tmp_path), log=quiet)
    assert curve(folder) == curve(tmp_path)
    for a, b in zip(weights(plain), weights(tested), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_evaluation_leaves_its_numbers_and_answers_with_pictures(tested):
    folder, _ = tested
    rows = read_rows(folder / "evaluations.jsonl")
    assert [row["step"] for row in rows] == [2, 4]
    assert rows[1]["loss"] < rows[0]["loss"]  # two steps at a rate that learns
    assert all(0 <= row["exact_match"] <= row["anls"] <= 1 for row in rows)
    samples = folder / "samples" / "step_000004"
    (line,) = (samples / "samples.jsonl").read_text().splitlines()
    sample = json.loads(line)
    assert sample["policy"] == "native"
    assert sample["expected"]
    assert isinstance(sample["got"], str)
    view = next(name for name in sample["pictures"] if name.endswith("-view.png"))
    pixels = np.asarray(Image.open(samples / view))
    assert pixels.shape[0] * pixels.shape[1] == sample["visual_tokens"] * 16**2
    seconds = [r["evaluation_seconds"] for r in read_rows(folder / "metrics.jsonl")[2:3]]
    assert seconds[0] > 0


@pytest.mark.slow
def test_the_best_step_outlives_newer_ones_and_loads(tmp_path, monkeypatch):
    losses = iter([1.0, 3.0, 2.0])
    evaluate = Evaluator.evaluate

    def rigged(self, *args, **kwargs):
        return evaluate(self, *args, **kwargs) | {"loss": next(losses)}

    monkeypatch.setattr(Evaluator, "evaluate", rigged)
    checkpoint = CheckpointConfig(dir=str(tmp_path / "a"), every_steps=1, keep=1)
    run = tiny_run(tmp_path / "a", steps=3, checkpoint=checkpoint)
    settings = dataclasses.replace(EVALUATE, every_steps=1, num_questions=0)
    train(dataclasses.replace(run, evaluate=settings), log=quiet)
    folder = tmp_path / "a" / "checkpoints"
    assert sorted(path.name for path in folder.glob("step_*")) == ["step_00000001", "step_00000003"]
    assert json.loads((folder / "best.json").read_text())["step"] == 1
    assert load_model(folder / "best").model is not None
    assert (folder / "best").resolve().name == "step_00000001"


@pytest.mark.slow
def test_a_signal_is_heard_in_an_evaluation_which_is_made_up_for(tmp_path, monkeypatch):
    losses = Evaluator._losses

    def stopped_in_the_middle(self, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        return losses(self, *args, **kwargs)

    run = tiny_run(
        tmp_path / "a", evaluate=EVALUATE, checkpoint=CheckpointConfig(dir=str(tmp_path / "a"))
    )
    with monkeypatch.context() as patched:
        patched.setattr(Evaluator, "_losses", stopped_in_the_middle)
        assert train(run, log=quiet).step == 2
    assert not read_rows(tmp_path / "a" / "evaluations.jsonl")
    assert train(run, log=quiet).step == 4
    assert [row["step"] for row in read_rows(tmp_path / "a" / "evaluations.jsonl")] == [2, 4]


@pytest.mark.parametrize("seed", [0, 1])
def test_rows_that_are_held_out_never_train_whatever_seed_epoch_or_policy(tmp_path, seed):
    run = rows_run(tmp_path, held_out=5, weight=2.5)
    run = dataclasses.replace(run, seed=seed, policies={"native": 1.0, "budget:8": 1.0})
    (trained,), (held,) = (
        open_sources(run, spec_of(run), TOKENIZER, kept=kept, seed=f"{seed}")
        for kept in ("train", "held_out")
    )
    assert len(held.taken) == 5
    used = {trained.name(epoch, n) for epoch in range(3) for n in range(len(trained.sizes(epoch)))}
    kept = {held.name(0, n) for n in range(5)}
    assert not used & kept
    assert len(used | kept) == len(
        open_rows(
            run.data[0].path, spec=spec_of(run), images=run.data[0].images, tokenizer=TOKENIZER
        )
    )


def test_held_out_documents_are_others_and_the_same_for_every_seed(tmp_path):
    run = tiny_run(tmp_path, evaluate=EVALUATE)
    first, second = (
        open_held_out(dataclasses.replace(run, seed=seed), spec_of(run), TOKENIZER, max_context=512)
        for seed in (0, 7)
    )
    for a, b in zip(jax.tree.leaves(first.packs), jax.tree.leaves(second.packs), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [q.expected for q in first.questions] == [q.expected for q in second.questions]
    (source,) = open_sources(run, spec_of(run), TOKENIZER, kept="train", seed=run.seed)
    trained = {source.example(0, number).patches.tobytes() for number in range(24)}
    (pack,) = first.packs
    held = {pack.patches[part].tobytes() for part in example_slices(pack.patch_segment_ids)}
    assert held
    assert not held & trained


def test_questions_about_rows_are_their_first_turns(tmp_path):
    run = dataclasses.replace(
        rows_run(tmp_path, held_out=8),
        evaluate=dataclasses.replace(EVALUATE, num_questions=4, policy="budget:8"),
    )
    held = open_held_out(run, spec_of(run), TOKENIZER, max_context=512)
    lines = pathlib.Path(run.data[0].path).read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    known = {(row["question"], row["answer"]) for row in rows}
    assert len(held.questions) == 4
    assert {(q.request.question, q.expected) for q in held.questions} <= known
    assert {q.request.policy for q in held.questions} == {"budget:8"}
    with pytest.raises(ConfigError, match=r"nothing to ask under budget:8"):
        open_held_out(run, spec_of(run), TOKENIZER, max_context=5)


def test_a_second_turn_of_the_user_is_no_answer(tmp_path):
    run = rows_run(tmp_path, held_out=4)
    path = pathlib.Path(run.data[0].path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        said = (("user", "Look at this."), ("user", row.pop("question")))
        said = (*said, ("assistant", row.pop("answer")))
        row["messages"] = [{"role": role, "content": text} for role, text in said]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    evaluate = dataclasses.replace(EVALUATE, num_questions=4, policy="budget:8")
    with pytest.raises(ConfigError, match=r"nothing to ask under budget:8"):
        open_held_out(
            dataclasses.replace(run, evaluate=evaluate), spec_of(run), TOKENIZER, max_context=512
        )


def test_holding_out_every_row_is_refused(tmp_path):
    run = rows_run(tmp_path, held_out=10_000)
    with pytest.raises(ConfigError, match=r"held_out=10000 of rows\.jsonl, which has \d+ usable"):
        open_sources(run, spec_of(run), TOKENIZER, kept="train", seed=0)


def test_other_data_may_be_named_to_evaluate_on(tmp_path):
    other = Documents(examples=4, kinds={"sign": 1.0}, area_bins={"B": 1.0})
    run = tiny_run(tmp_path, evaluate=dataclasses.replace(EVALUATE, data=(other,)))
    instead = dataclasses.replace(run, data=(other,), evaluate=EVALUATE)
    named, alone = (
        open_held_out(each, spec_of(run), TOKENIZER, max_context=512) for each in (run, instead)
    )
    np.testing.assert_array_equal(named.packs[0].patches, alone.packs[0].patches)
    assert [q.expected for q in named.questions] == [q.expected for q in alone.questions]


def test_rows_of_another_file_may_be_named_and_all_of_them_are_used(tmp_path):
    run, other = rows_run(tmp_path), rows_run(tmp_path / "other")
    settings = dataclasses.replace(EVALUATE, num_questions=100, data=other.data)
    run = dataclasses.replace(run, evaluate=settings)
    held = open_held_out(run, spec_of(run), TOKENIZER, max_context=512)
    lines = pathlib.Path(other.data[0].path).read_text().splitlines()
    assert len(held.packs) == 1
    assert len(held.questions) == len(lines)
    folder = pathlib.Path(other.data[0].path).parent
    assert folder != pathlib.Path(run.data[0].path).parent

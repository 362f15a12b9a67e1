"""What a dry run says of a run is what the run then does."""

import dataclasses
import functools
import json

import jax
import pytest

from mres_jax import testing
from mres_jax.cli import main
from mres_jax.config import Evaluate, LoRA, MeshConfig, Rows, Schedule
from mres_jax.data.types import Rung
from mres_jax.errors import MresError
from mres_jax.testing import tiny_run
from mres_jax.training.dry_run import dry_run
from mres_jax.training.input.documents import document_tokenizer
from mres_jax.training.loop import train
from mres_jax.training.metrics import read_rows
from mres_jax.training.setup import set_up, set_up_abstractly

EPOCH = Schedule(epochs=1, warmup_steps=1, kind="constant")


@pytest.fixture(autouse=True)
def promotion_as_optax_needs_it():
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.slow
def test_it_tells_steps_fullness_and_flops_as_the_run_measures_them(tmp_path):
    run = tiny_run(tmp_path / "a", schedule=EPOCH, log_every=4)
    report = dry_run(run)
    assert not (tmp_path / "a").exists()
    assert report.steps == report.packs == sum(use.packs for use in report.rungs)
    assert report.epochs == 1.0
    assert report.examples == 24
    trained = train(dataclasses.replace(run, log_every=report.steps), log=lambda line: None)
    assert trained.step == report.steps
    (row,) = read_rows(tmp_path / "a" / "metrics.jsonl")
    assert row["patch_efficiency"] == pytest.approx(report.patch_efficiency, abs=1e-9)
    assert row["token_efficiency"] == pytest.approx(report.token_efficiency, abs=1e-9)
    measured = row["flops_per_s"] * row["seconds_per_step"]
    assert measured == pytest.approx(report.flops_per_step, rel=0.3)  # of the first packs alone


@pytest.mark.slow
@pytest.mark.parametrize("peft", [None, LoRA(rank=2)], ids=["whole", "adapters"])
def test_the_abstract_state_is_that_of_the_run(tmp_path, peft):
    run = tiny_run(tmp_path, peft=peft)
    whole, abstract = set_up(run, run.schedule).state, set_up_abstractly(run, run.schedule).state
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(abstract), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
    report = dry_run(run)
    counted = sum(n for counts in report.parameters.values() for n in counts.values())
    held = jax.tree.leaves((whole.params, whole.frozen))
    assert counted == sum(x.size for x in held)
    told = report.state_bytes
    assert told["trained parameters"] + told["frozen parameters"] == sum(x.nbytes for x in held)
    assert told["optimiser state"] == sum(x.nbytes for x in jax.tree.leaves(whole.opt_state))


@pytest.mark.slow
def test_temporaries_hold_the_gradients_at_least(tmp_path):
    report = dry_run(tiny_run(tmp_path))
    (use,) = report.rungs
    assert use.temporary_bytes is not None
    assert use.temporary_bytes > report.state_bytes["trained parameters"]
    assert report.peak_bytes == sum(report.state_bytes.values()) + use.temporary_bytes


@pytest.mark.slow
def test_packs_of_a_step_are_counted(tmp_path):
    report = dry_run(tiny_run(tmp_path, accumulation=2, schedule=EPOCH))
    assert report.steps == report.packs // 2
    assert report.state_bytes["sum of gradients"] == report.state_bytes["trained parameters"]


@pytest.mark.slow
def test_the_command_prints_it_and_writes_nothing(tmp_path, capsys):
    file = tmp_path / "run.py"
    file.write_text(
        "from mres_jax.testing import tiny_run\n"
        f"def get_config():\n    return tiny_run({str(tmp_path / 'a')!r})\n"
    )
    assert main(["train", str(file), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "24 examples in" in out
    assert "optimiser state" in out
    assert main(["train", str(file), "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["steps"] == 4
    assert told["peak_bytes"] > sum(told["state_bytes"].values())
    assert main(["train", str(file), "--json"]) == 2
    assert "--json goes with --dry-run" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"evaluate": Evaluate(data=(Rows(path="nowhere.jsonl"),))},
            r"nowhere\.jsonl",
        ),
        ({"evaluate": Evaluate(policy="fixed:100000")}, r"max_pixels"),
        ({"mesh": MeshConfig(tensor=3)}, r"tensor=3"),
    ],
    ids=["held-out rows", "policy of questions", "mesh"],
)
def test_what_training_would_refuse_is_refused(tmp_path, changes, message):
    run = tiny_run(tmp_path / "a", **changes)
    refused = []
    for start in (dry_run, functools.partial(train, log=lambda line: None)):
        with pytest.raises(MresError, match=message) as error:
            start(run)
        refused.append(str(error.value))
    assert refused[0] == refused[1]
    assert not (tmp_path / "a" / "run.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_models_with_windows_and_deepstack_take_adapters_on_all_layers(tmp_path, family):
    config = testing.tiny_config(family, document_tokenizer())
    peft = LoRA(targets=("vision.blocks", "text.layers"), rank=2)
    rung = Rung(max_patches=16_384, max_tokens=8_192, max_views=32, max_examples=16)
    report = dry_run(tiny_run(tmp_path, model=config, peft=peft, ladder=(rung,)))
    (use,) = report.rungs
    assert use.temporary_bytes
    assert all(report.parameters[part]["trained"] for part in ("vision", "text"))
    assert report.flops_per_step > 0

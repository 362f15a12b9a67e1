"""A backbone that learns beside the allocator, with the library's own sampler: minutes, nightly."""

import dataclasses

import numpy as np
import pytest
from flax import nnx

from mres_jax.config import BackboneTraining, LoRA, OptimizerConfig, Schedule
from mres_jax.errors import ConfigError, RunError
from mres_jax.models.registry import load_model
from mres_jax.testing.runs import rows_without_clocks
from mres_jax.training.allocator import loop
from mres_jax.training.allocator.loop import train_allocator
from mres_jax.training.metrics import read_rows

pytestmark = pytest.mark.slow
EVEN = "return float(answer.token_ids[0] % 2 == 0)"  # tells answers apart, whatever was seen


def quiet(line):
    """Says nothing."""


def learning(rate=3e-3, **changes):
    return BackboneTraining(optimizer=OptimizerConfig(learning_rate=rate), **changes)


def constant(steps):
    return Schedule(num_steps=steps, warmup_steps=0, kind="constant")


def test_a_planted_reward_is_raised_by_the_backbone(make_run, parts, tmp_path):
    before = np.asarray(parts.model.text.embed.embedding.get_value()).copy()
    settings = {"rollouts": 2, "backbone_training": learning()}
    run = make_run(body=EVEN, schedule=constant(12), **settings)
    train_allocator(run, parts=parts, log=quiet)
    rows = read_rows(tmp_path / "run/metrics.jsonl")
    assert np.mean([row["right"] for row in rows[-3:]]) > rows[0]["right"] + 0.2
    ratios = [row["backbone_ratio"] for row in rows if "backbone_ratio" in row]
    assert ratios
    assert max(abs(ratio - 1) for ratio in ratios) < 1e-4  # of the first update of each step
    after = np.asarray(parts.model.text.embed.embedding.get_value())
    np.testing.assert_array_equal(before, after)  # what was lent is given back untouched


@pytest.mark.parametrize("peft", [None, LoRA(rank=2)], ids=["whole", "lora"])
def test_both_go_on_bit_for_bit_and_the_checkpoint_is_a_model(peft, make_run, parts, tmp_path):
    settings = learning(every=2, peft=peft)
    lengths = {"whole": 4, "cut": 2}
    for name, steps in lengths.items():
        run = make_run(name, body=EVEN, schedule=constant(steps), backbone_training=settings)
        train_allocator(run, parts=parts, log=quiet)
    run = dataclasses.replace(run, schedule=constant(4))
    train_allocator(run, parts=parts, log=quiet)
    rows = [rows_without_clocks(tmp_path / name) for name in lengths]
    assert rows[0] == rows[1]
    assert ["backbone_loss" in row for row in rows[0]].count(True) <= 2  # every second step
    loaded = load_model(tmp_path / "cut" / "checkpoints")
    own = nnx.to_flat_state(nnx.state(loaded.model, nnx.Param))
    old = dict(nnx.to_flat_state(nnx.state(parts.model, nnx.Param)))
    moved = [path for path, x in own if not np.array_equal(x.get_value(), old[path].get_value())]
    assert moved


def test_an_answerer_that_cannot_learn_is_refused(make_run, planted):
    run = make_run(backbone_training=learning())
    with pytest.raises(ConfigError, match="another answers than the model"):
        train_allocator(run, parts=planted, log=quiet)


def test_a_backbone_that_only_skips_ends_the_run_by_its_own_name(make_run, parts, monkeypatch):
    plain, said = loop.pack_rollouts, []

    def spoilt(*args, **options):
        made = [deferred.make() for deferred in plain(*args, **options)]
        return [pack._replace(advantages=pack.advantages * np.nan) for pack in made]

    monkeypatch.setattr(loop, "pack_rollouts", spoilt)
    changes = {"updates": 2, "max_skipped": 3, "drop_agreeing": False}
    run = make_run(body=EVEN, schedule=constant(3), backbone_training=learning(), **changes)
    message = (
        r"the last 3 updates of the backbone were skipped, up to step 2 \(loss nan.*\): none was "
        r"saved\. Lower backbone_training\.optimizer\.learning_rate"
    )
    with pytest.raises(RunError, match=message):
        train_allocator(run, parts=parts, log=said.append)
    skipped = [line for line in said if "skipped" in line]
    assert [line.split(" skipped")[0] for line in skipped] == [
        f"step     {step}: update of the backbone" for step in (1, 1, 2)
    ]

"""Run files, overrides and their JSON: laws, and the one line that a mistake gets."""

import subprocess
import sys
import textwrap

import pytest

from mres_jax.config import (
    CheckpointConfig,
    Documents,
    OptimizerConfig,
    Run,
    Schedule,
    apply_overrides,
    did_you_mean,
    diff,
    from_json,
    load_run,
    to_json,
)
from mres_jax.data.types import Rung
from mres_jax.errors import ConfigError
from mres_jax.models.qwen2.config import TextConfig
from mres_jax.models.qwen2_vl.config import Qwen2VLConfig, VisionConfig


def make_run(**changes) -> Run:
    text = TextConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        mrope_section=(2, 3, 3),
    )
    vision = VisionConfig(depth=1, embed_dim=32, num_heads=2, hidden_size=32)
    fields = {
        "name": "x",
        "model": Qwen2VLConfig(vision_config=vision, text_config=text),
        "data": (Documents(),),
        "policies": {"native": 1.0, "fixed:64,mode=pad": 0.5},
        "ladder": (
            Rung(max_patches=64, max_tokens=32, max_views=4, max_examples=2),
            Rung(max_patches=256, max_tokens=96, max_views=8, max_examples=4),
        ),
        "optimizer": OptimizerConfig(),
        "schedule": Schedule(num_steps=100),
        "checkpoint": CheckpointConfig(dir="runs/x"),
        "smoke": {"schedule.num_steps": "3"},
    }
    return Run(**(fields | changes))


RUN_FILE = """
from mres_jax.config import *
from mres_jax.data.types import Rung
from mres_jax.models.qwen2.config import TextConfig

def get_config():
    model = TextConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                       num_attention_heads=1, num_key_value_heads=1)
    return Run(name="x", model=model, data=(Documents(),), policies={"native": 1.0},
               ladder=(Rung(max_patches=4, max_tokens=4, max_views=1, max_examples=1),),
               optimizer=OptimizerConfig(), schedule=Schedule(num_steps=9),
               checkpoint=CheckpointConfig(dir="runs/x"), smoke={"schedule.num_steps": "3"})
"""


@pytest.fixture
def run_file(tmp_path):
    path = tmp_path / "tiny.py"
    path.write_text(RUN_FILE)
    return path


def test_json_reads_back_equal_with_every_type_kept():
    run = make_run()
    text = to_json(run)
    assert from_json(text) == run
    assert '"type": "mres_jax.config:Run"' in text  # the public path: private files may move


@pytest.mark.parametrize(
    ("override", "read", "expected"),
    [
        ("--schedule.num_steps=1_000", lambda r: r.schedule.num_steps, 1000),
        ("schedule.warmup-steps=7", lambda r: r.schedule.warmup_steps, 7),
        ("optimizer.learning_rate=3e-4", lambda r: r.optimizer.learning_rate, 3e-4),
        ("loss_chunk=none", lambda r: r.loss_chunk, None),
        ("checkpoint.dir=gs://b/a=b", lambda r: r.checkpoint.dir, "gs://b/a=b"),
        ("ladder.1.max_tokens=128", lambda r: r.ladder[1].max_tokens, 128),
        ('policies={"scale:0.5": 1}', lambda r: r.policies, {"scale:0.5": 1.0}),
        ("policies.scale:0.5=0.2", lambda r: r.policies["scale:0.5"], 0.2),
        (
            "model.text_config.mrope_section=2,2,4",
            lambda r: r.model.text_config.mrope_section,
            (2, 2, 4),
        ),
        ("model.text_config.mrope_section=none", lambda r: r.model.text_config.mrope_section, None),
        (
            "model.text_config.tie_word_embeddings=true",
            lambda r: r.model.text_config.tie_word_embeddings,
            True,
        ),
    ],
)
def test_an_override_changes_its_field_alone(override, read, expected):
    before = make_run()
    after = apply_overrides(before, [override])
    assert read(after) == expected
    name = override.removeprefix("--").partition("=")[0].replace("-", "_")
    assert all(line.startswith(name) for line in diff(before, after))


def test_overrides_are_applied_together_so_sizes_may_change_in_step():
    both = ["model.vision_config.embed_dim=24", "model.vision_config.num_heads=3"]
    run = apply_overrides(make_run(), both)
    assert (run.model.vision_config.embed_dim, run.model.vision_config.num_heads) == (24, 3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "schedule.nun_steps=3",
            "schedule: no field 'nun_steps'. Did you mean 'num_steps'? Fields here: num_steps, "
            "epochs, warmup_steps, warmup_fraction, kind, end_fraction.",
        ),
        ("log_every=three", "log_every=three: not a whole number."),
        ("schedule.num_steps=2.5", "schedule.num_steps=2.5: not a whole number or none."),
        ("optimizer.learning_rate=nan", "optimizer.learning_rate=nan: not a finite number."),
        (
            "model.text_config.tie_word_embeddings=maybe",
            "model.text_config.tie_word_embeddings=maybe: not true or false.",
        ),
        (
            "schedule.kind=cosin",
            "schedule.kind=cosin: not one of cosine, linear, constant. Did you mean 'cosine'?",
        ),
        (
            "schedule=3",
            "schedule=3: cannot be set as a whole; set one of num_steps, epochs, warmup_steps, "
            "warmup_fraction, kind, end_fraction.",
        ),
        ("ladder.2.max_tokens=1", "ladder: no entry '2'; it has 2, from 0."),
        ("seed.x=3", "seed: has no fields, but seed.x was given."),
        (
            "policies={oops",
            "policies={oops: not JSON (Expecting property name enclosed in double quotes); give "
            "Mapping[str, float].",
        ),
        (
            "policies.native=-1",
            "Run: policies['native']=-1.0 is no weight; give a finite number >= 0.",
        ),
        (
            "model.vision_config.embed_dim=30",
            "VisionConfig: embed_dim=30 is not a multiple of 4 * num_heads=8: each head turns by "
            "row and by column.",
        ),
        ("schedule.num_steps", "override 'schedule.num_steps': write --name.of.field=value."),
        (
            'data.0.questions={"rd": 1}',
            "Documents: questions: unknown 'rd'. Have rc, sc, point.",
        ),
        (
            'data.0.kinds={"invoce": 1}',
            "Documents: kinds: unknown 'invoce'. Did you mean 'invoice'? Have page, invoice, "
            "table, sign, screen, desktop, scene.",
        ),
        (
            'data.0.images_per_prompt={"0": 1}',
            "Documents: images_per_prompt: '0' is no number from 1 on.",
        ),
        ("accumulation=0", "Run: accumulation=0 must be at least 1."),
        ("loss_chunk=0", "Run: loss_chunk=0 must be at least 1, or none."),
        (
            "dtype=bf16",
            "dtype=bf16: not one of float32, bfloat16. Did you mean 'bfloat16'?",
        ),
    ],
)
def test_a_wrong_override_is_one_line_with_its_name_and_its_cure(override, message):
    with pytest.raises(ConfigError) as error:
        apply_overrides(make_run(), [override])
    assert str(error.value) == message


def test_an_unknown_top_field_lists_what_a_run_has():
    with pytest.raises(ConfigError, match=r"Run: no field .modle.\. Did you mean .model."):
        apply_overrides(make_run(), ["modle.depth=3"])


def test_a_run_file_is_loaded_with_smoke_below_the_users_overrides(run_file):
    assert load_run(run_file).schedule.num_steps == 9
    assert load_run(run_file, smoke=True).schedule.num_steps == 3
    assert load_run(run_file, ["schedule.num_steps=5"], smoke=True).schedule.num_steps == 5


def test_a_smoke_run_is_saved_beside_the_run(run_file):
    """Otherwise the run would go on from the smoke's random weights."""
    assert load_run(run_file).checkpoint.dir == "runs/x"
    assert load_run(run_file, smoke=True).checkpoint.dir == "runs/x-smoke"
    here = load_run(run_file, ["checkpoint.dir=here"], smoke=True)
    assert here.checkpoint.dir == "here"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1", "has no get_config(); a run file defines get_config() -> Run."),
        ("def get_config(): return 3", "get_config() returned a int, not a Run."),
        ("def get_config(\n  return", "SyntaxError: "),
        ("import nothing_of_that_name", ":1: ModuleNotFoundError: No module named"),
        ("def get_config():\n  return 1 / 0", ":2: ZeroDivisionError: division by zero"),
    ],
)
def test_a_broken_run_file_is_one_line_with_its_place(tmp_path, source, message):
    path = tmp_path / "bad.py"
    path.write_text(source)
    with pytest.raises(ConfigError) as error:
        load_run(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_run_file_names_the_nearest(run_file):
    with pytest.raises(ConfigError, match=r"tniy\.py: no such run file\. Did you mean"):
        load_run(run_file.with_name("tniy.py"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config: no JSON"),
        ('{"type": "os:PathLike"}', "'os:PathLike' is no configuration class of mres_jax."),
        ('{"type": "mres_jax.config:load_run"}', "is no configuration class of mres_jax."),
        ('{"type": "mres_jax.config:Schedule", "x": 1}', "config: no field 'x'."),
        ('{"type": "mres_jax.config:Rows"}', "config: Rows needs a value for path."),
        ('{"type": "mres_jax.config:Schedule", "num_steps": true}', "num_steps=True: not a whole"),
    ],
)
def test_json_of_strangers_runs_nothing_and_is_refused_by_name(text, message):
    with pytest.raises(ConfigError) as error:
        from_json(text)
    assert message in str(error.value)


def test_json_imports_no_module_of_a_stranger(tmp_path, monkeypatch):
    (tmp_path / "stranger.py").write_text(
        "import dataclasses\n@dataclasses.dataclass\nclass Config:\n    x: int = 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="'stranger:Config' is no configuration class"):
        from_json('{"type": "stranger:Config"}')
    assert "stranger" not in sys.modules


def test_a_difference_names_fields_that_only_one_side_has():
    before = make_run()
    after = make_run(policies={"native": 1.0}, model=before.model.text_config)
    lines = diff(before, after)
    assert "policies.fixed:64,mode=pad: 0.5 -> absent" in lines
    assert "model.vocab_size: absent -> 64" in lines
    assert diff(before, before) == []


def test_equal_numbers_of_different_types_are_no_difference():
    assert diff(make_run(policies={"native": 1}), make_run(policies={"native": 1.0})) == []


def test_an_empty_ladder_is_named_and_not_what_points_into_it():
    with pytest.raises(ConfigError, match=r"Run: ladder is empty; give at least one Rung\."):
        make_run(ladder=())


def test_did_you_mean_is_silent_when_nothing_is_near():
    assert did_you_mean("xyzzy", ["native"]) == ""


def test_the_room_needs_neither_numpy_nor_jax():
    code = textwrap.dedent("""
        import sys, mres_jax.config
        print([name for name in ("jax", "numpy", "flax") if name in sys.modules])
    """)
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"

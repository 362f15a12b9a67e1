"""What a run trains, as a run file says it and as overrides change it."""

import dataclasses

import pytest

from mres_jax.config import LoRA, Run, apply_overrides, from_json, to_json
from mres_jax.errors import ConfigError
from mres_jax.testing import tiny_run


def make_run(**changes) -> Run:
    return tiny_run("runs/x", **changes)


@pytest.mark.parametrize(
    ("before", "overrides", "after"),
    [
        (None, ["train.vision=0.2"], {"vision": 0.2}),
        ({"text": 1.0}, ["--train.vision=0.2"], {"text": 1.0, "vision": 0.2}),
        (
            None,
            ["train.vision=0.2", "train.vision.merger=1"],
            {"vision": 0.2, "vision.merger": 1.0},
        ),
        ({"text": 1.0}, ['train={"": 1, "vision": 0.2}'], {"": 1.0, "vision": 0.2}),
        ({"text": 1.0}, ['train={"vision": 0.2}', "train.text=3"], {"vision": 0.2, "text": 3.0}),
        ({"text": 1.0}, ["train=none"], None),
    ],
)
def test_multipliers_are_set_whole_or_one_by_one(before, overrides, after):
    assert apply_overrides(make_run(train=before), overrides).train == after


@pytest.mark.parametrize(
    ("before", "overrides", "after"),
    [
        (None, ["peft.rank=8"], LoRA(rank=8)),
        (
            LoRA(rank=4, targets=("*.q",)),
            ["--peft.alpha=9"],
            LoRA(rank=4, alpha=9.0, targets=("*.q",)),
        ),
        (None, ["peft.targets=*.q,*.v"], LoRA(targets=("*.q", "*.v"))),
        (LoRA(rank=4), ["peft=none"], None),
    ],
)
def test_adapters_that_a_run_file_leaves_out_begin_with_their_defaults(before, overrides, after):
    assert apply_overrides(make_run(peft=before), overrides).peft == after


@pytest.mark.parametrize(
    ("before", "overrides", "after"),
    [
        (None, ["--init=org/name"], "org/name"),
        (None, ['--init={"text": "/x"}'], {"text": "/x"}),
        ("org/name", ['init={"text": "/x"}', "init.vision=/y"], {"text": "/x", "vision": "/y"}),
        (None, ["--init.text=/x", "init.vision.merger=/y"], {"text": "/x", "vision.merger": "/y"}),
        ({"text": "/x"}, ["init.vision=/y"], {"text": "/x", "vision": "/y"}),
        ({"text": "/x"}, ["init=/z"], "/z"),
        ({"text": "/x"}, ["init=none"], None),
    ],
)
def test_what_a_run_starts_from_is_set_whole_or_part_by_part(before, overrides, after):
    assert apply_overrides(make_run(init=before), overrides).init == after


def test_json_keeps_parts_and_adapters():
    run = make_run(train={"": 1.0, "vision.merger": 0.5}, peft=LoRA(targets=("*.q",)))
    assert from_json(to_json(run)) == run
    assert from_json(to_json(make_run())) == make_run()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["train.vision=0"],
            "Run: train['vision']=0.0 must be finite and above 0. What no entry names is frozen: "
            "leave it out to freeze it.",
        ),
        (
            ["train={}"],
            "Run: train={} trains nothing; name a part (such as projector), or leave it out to "
            "train the whole model.",
        ),
        (["train.vision=slow"], "train.vision=slow: not a number."),
        (["peft.rank=0"], "LoRA: rank=0 must be at least 1."),
        (["peft.alpha=-1"], "LoRA: alpha=-1.0 must be finite and above 0."),
        (
            ["peft.targets="],
            "LoRA: targets=[] names no layer; give patterns such as text.layers or *.attn.q, or "
            "leave peft out.",
        ),
        (["peft=8"], "peft=8: cannot be set as a whole; set one of targets, rank, alpha."),
        (
            ["peft=none", "peft.rank=8"],
            "peft=none: peft.rank is given too; give one of the two.",
        ),
        (
            ["peft.ranks=8"],
            "peft: no field 'ranks'. Did you mean 'rank'? Fields here: targets, rank, alpha.",
        ),
        (
            ["init={oops"],
            "init={oops: not JSON (Expecting property name enclosed in double quotes); give "
            "Mapping[str, str].",
        ),
        (
            ["init=org/name", "init.text=/x"],
            "init=org/name: init.text is given too; give one of the two.",
        ),
        (["frozen_dtype=int8"], "frozen_dtype=int8: not one of float32, bfloat16 or none."),
    ],
)
def test_what_cannot_be_trained_is_one_line_with_its_cure(overrides, message):
    with pytest.raises(ConfigError) as error:
        apply_overrides(make_run(), overrides)
    assert str(error.value) == message


def test_adapters_alone_need_no_part():
    assert dataclasses.replace(make_run(), train={}, peft=LoRA()).train == {}

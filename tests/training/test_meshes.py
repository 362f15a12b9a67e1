"""A run over many devices is the run on one; a mesh that cannot be is one clear line."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from mres_jax import testing
from mres_jax.config import MeshConfig
from mres_jax.errors import ConfigError
from mres_jax.nn import param_spec
from mres_jax.testing.allocator_runs import tiny_allocator_run
from mres_jax.training.loop import train
from mres_jax.training.meshes import check_model, make_mesh

HERE = pathlib.Path(__file__).parent
TOP = pathlib.Path(__file__).parents[2]
FAMILIES = (
    "tiny_qwen2_vl",
    "tiny_qwen2_5_vl",
    "tiny_qwen3_vl",
    "tiny_nativeres_llava",
    "tiny_llava",
    "tiny_llava_next",
    "tiny_llava_hr",
    "tiny_smolvlm",
)
MESHES = (
    {"data": 4},
    {"fsdp": 4},
    {"fsdp": 2, "tensor": 2},
    {"data": 2, "fsdp": 2, "tensor": 2},
    {"fsdp": 4, "sequence": 2},
)
RL_MESHES = (*MESHES, {"data": 8}, {"sequence": 2})


def run_program(name: str, *args: str) -> Any:
    """What a program beside this file prints."""
    command = [sys.executable, str(HERE / name), *args]
    paths = os.pathsep.join([str(TOP / "kernels"), str(TOP)])
    settings = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": paths}
    run = subprocess.run(command, capture_output=True, text=True, env=settings)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout)


def over_meshes(name: str, *meshes: dict[str, int]) -> list[list[float]]:
    """Losses of a single device, and of each mesh."""
    return run_program("over_meshes.py", name, *map(json.dumps, meshes))


def rl_over_meshes(kind: str, folder: pathlib.Path, *meshes: dict[str, int]) -> list[list[float]]:
    """The same of recorded rollouts: each update's objective and what is added to it."""
    return run_program("rl_over_meshes.py", kind, str(folder), *map(json.dumps, meshes))


def assert_equal_updates(rows: list[list[float]], count: int) -> None:
    """Objectives are means of advantages near 1, whose sum is near 0: the tolerance is absolute."""
    alone, *others = rows
    assert len(alone) == count
    print(f"furthest from one device: {np.abs(np.subtract(others, alone)).max():.1e}")  # -rP
    for row in others:
        assert row == pytest.approx(alone, abs=1e-5)


def assert_equal_rollouts(alone: dict[str, Any], other: dict[str, Any]) -> None:
    """The same draws with the same probability, and the same numbers of each step.

    Another token comes out only where the best two of a draw are as close as sums in another order
    differ. Here that is rare: weights that are off by 1e-3 change one of 144 tokens.
    """
    assert other["tokens"] == alone["tokens"]
    off, count = max(other["off"]), len(other["tokens"])
    apart = np.abs(np.subtract(other["logprobs"], alone["logprobs"])).max()
    print(f"{count} tokens; log-probabilities {apart:.1e} nats apart, ratios {off:.1e} from 1")
    assert other["logprobs"] == pytest.approx(alone["logprobs"], abs=1e-4)
    assert off < 1e-4  # each ratio of an update on its policy, from 1
    for name, tolerance in (("rollouts", 2e-4), ("rows", 1e-5)):  # scales are written in 1e-4
        for ours, theirs in zip(other[name], alone[name], strict=True):
            assert ours.keys() == theirs.keys()
            for key, value in theirs.items():
                is_text = key in ("id", "answers")
                expected = value if is_text else pytest.approx(value, rel=1e-5, abs=tolerance)
                assert ours[key] == expected, key


def assert_equal_runs(rows: list[list[float]]) -> None:
    """Float32 sums in other orders through three steps of AdamW, which divides the rounding of a
    gradient near zero by its size. Losses are near 12, where the last bit is 1e-6."""
    alone, *others = rows
    assert len(alone) == 3
    assert abs(alone[0] - alone[1]) > 1e-3  # other packs, other weights
    for row in others:
        assert row == pytest.approx(alone, rel=1e-5)


def test_a_run_on_eight_devices_is_the_run_on_one():
    assert_equal_runs(over_meshes("reader", {"data": 2, "fsdp": 2, "tensor": 2}))


@pytest.mark.slow
def test_what_a_run_starts_from_is_read_to_where_it_lies_and_never_whole_to_one_device(tmp_path):
    """A checkpoint of ours, Hugging Face's files, and a mapping of parts."""
    rows = run_program("init_over_meshes.py", str(tmp_path), '{"fsdp": 4}')
    assert len(rows) == 3
    for size, most, wrong in rows:
        assert wrong == 0
        assert size / 4 <= most < 1.2 * size / 4  # biases and scales are not shared out


@pytest.mark.parametrize(
    ("family", "meshes"),
    [
        ("tiny_qwen2_vl", [{"data": 2, "fsdp": 2}]),
        *(
            pytest.param(
                family, [{"data": 4}, {"fsdp": 2, "tensor": 2}], marks=pytest.mark.slow, id=family
            )
            for family in FAMILIES
        ),
    ],
)
def test_ranks_answer_packs_of_their_own_as_one_device_does(family, meshes):
    """Tokens equal; log-probabilities within 2e-3: other sums, amplified by random weights.

    Decoding over fsdp gathers weights, unless they were gathered once.
    """
    alone, *others = run_program("answers_over_meshes.py", family, *map(json.dumps, meshes))
    assert alone["at_once"] == max(alone["runs"]) == 1
    for mesh, other in zip(meshes, others, strict=True):
        ranks = mesh.get("data", 1) * mesh.get("fsdp", 1)
        assert other["at_once"] == max(other["runs"]) == ranks
        assert sum(other["runs"]) == sum(alone["runs"])
        assert (other["tokens"], other["reasons"]) == (alone["tokens"], alone["reasons"])
        pairs = zip(other["logprobs"], alone["logprobs"], strict=True)
        for there, here in ((a, b) for x, y in pairs for a, b in zip(x, y, strict=True)):
            np.testing.assert_allclose(there, here, atol=2e-3)
        assert ("gathered" in other) == (mesh.get("fsdp", 1) > 1)
        if gathered := other.get("gathered"):
            assert (gathered["tokens"], gathered["reasons"]) == (alone["tokens"], alone["reasons"])
            assert min(other["matrices"]) > 0  # for every token
            assert set(gathered["matrices"]) == {0}


@pytest.mark.slow
def test_an_allocator_learns_on_four_devices_what_it_learns_on_one(tmp_path):
    rows = rl_over_meshes("allocator", tmp_path, {"fsdp": 2, "tensor": 2})
    assert_equal_updates(rows, 3 * 3)  # the objective and two regularisers of three updates
    assert abs(rows[0][0] - rows[0][3]) > 1e-2  # other decisions, other weights


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "count"), [("allocator", 3 * 3), ("both", 2 * 4)])
def test_recorded_rollouts_teach_the_same_over_every_mesh(kind, count, tmp_path):
    """Allocator, and backbone beside it, off their policies from the second update on."""
    assert_equal_updates(rl_over_meshes(kind, tmp_path, *RL_MESHES), count)


@pytest.mark.slow
@pytest.mark.parametrize(
    "meshes",
    [
        [{"sequence": 2}],
        [{"fsdp": 2, "tensor": 2}],
        [{"data": 8}, {"data": 2, "fsdp": 2, "tensor": 2}],
    ],
    ids=["two", "four", "eight"],
)
def test_rollouts_drawn_over_a_mesh_are_those_of_one_device(meshes, tmp_path):
    """Of two steps, the second with an allocator and a backbone that have learnt over it."""
    runs = run_program("rollouts_over_meshes.py", str(tmp_path), *map(json.dumps, meshes))
    alone, *others = runs
    assert len(alone["rollouts"]) == 2 * 8 * 4
    assert len(others) == len(meshes) + any(mesh.get("fsdp", 1) > 1 for mesh in meshes)
    assert 0 < np.mean([row["right"] for row in alone["rows"]]) < 1  # something to learn from
    for other in others:
        assert_equal_rollouts(alone, other)


@pytest.mark.slow
def test_an_allocators_run_that_began_on_a_mesh_goes_on_on_one_device(tmp_path):
    alone, moved = run_program("rl_over_meshes.py", "moved", str(tmp_path))
    assert len(alone) > 2 * 15  # every number of two steps but clocks
    assert moved == pytest.approx(alone, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_the_same_over_every_mesh(family):
    assert_equal_runs(over_meshes(family, *MESHES))


@pytest.mark.slow
def test_a_run_that_began_on_a_mesh_goes_on_on_one_device_as_if_it_had_been_there(tmp_path):
    moved = run_program("moved_run.py", str(tmp_path / "moved"))
    alone = testing.tiny_run(tmp_path / "alone", accumulation=4)
    train(alone, log=lambda line: None)
    lines = (tmp_path / "alone" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert moved["metrics"] == pytest.approx(losses, abs=1e-5)  # as above
    assert len(moved["evaluations"]) == 2  # evaluated on the mesh and on one device


def test_packs_of_a_step_that_cannot_be_shared_out_are_refused(tmp_path):
    with pytest.raises(ConfigError) as error:
        testing.tiny_run(tmp_path, accumulation=6, mesh=MeshConfig(data=2, fsdp=2))
    assert str(error.value) == (
        "Run: accumulation=6 packs a step cannot be shared out over the 4 ranks of the mesh "
        "data=2 fsdp=2 tensor=1 sequence=1, data times fsdp. Take accumulation=8."
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"prompts": 8, "clips_per_pack": 8},
            "the 8 questions of an update in packs of clips_per_pack=8 cannot be shared out over "
            "the 4 ranks of the mesh data=2 fsdp=2 tensor=1 sequence=1, data times fsdp (packs: "
            "1). Take clips_per_pack=2.",
        ),
        (
            {"prompts": 12, "updates": 2, "clips_per_pack": 2},
            "the 6 questions of an update in packs of clips_per_pack=2 cannot be shared out over "
            "the 4 ranks of the mesh data=2 fsdp=2 tensor=1 sequence=1, data times fsdp (packs: "
            "3). Take prompts=16, clips_per_pack=2.",
        ),
    ],
)
def test_packs_of_an_update_that_cannot_be_shared_out_are_refused(tmp_path, changes, message):
    with pytest.raises(ConfigError) as error:
        tiny_allocator_run(tmp_path, "rows", mesh=MeshConfig(data=2, fsdp=2), **changes)
    assert str(error.value) == f"AllocatorRun: {message}"


def test_a_mesh_of_another_number_of_devices_is_refused_with_the_nearest(tmp_path):
    run = testing.tiny_run(tmp_path, accumulation=4, mesh=MeshConfig(data=2, fsdp=2))
    with pytest.raises(ConfigError) as error:
        make_mesh(run.mesh)
    assert str(error.value) == (
        "run: the mesh data=2 fsdp=2 tensor=1 sequence=1 takes 4 devices, here are 1. "
        "Take mesh.data=1, mesh.fsdp=1. If they are of 4 hosts, start it on each with --multihost."
    )


@pytest.mark.parametrize(
    ("mesh", "rung", "message"),
    [
        (
            MeshConfig(tensor=3),
            {},
            "run: the mesh data=1 fsdp=1 tensor=3 sequence=1 shares heads out over tensor x "
            "sequence = 3 devices, but text_config.num_attention_heads=4. Take mesh.tensor=1, "
            "mesh.sequence=1.",
        ),
        (
            MeshConfig(tensor=4),
            {},
            "run: the mesh data=1 fsdp=1 tensor=4 sequence=1 shares heads out over tensor x "
            "sequence = 4 devices, but text_config.num_key_value_heads=2. Take mesh.tensor=2, "
            "mesh.sequence=1.",
        ),
        (
            MeshConfig(sequence=2),
            {"max_tokens": 511},
            "run: the mesh data=1 fsdp=1 tensor=1 sequence=2 shares rows out over sequence=2 "
            "devices, but a rung has max_tokens=511. Take 512.",
        ),
    ],
)
def test_a_mesh_that_does_not_divide_heads_or_rows_is_refused_with_the_nearest(
    tmp_path, mesh, rung, message
):
    run = testing.tiny_run(tmp_path)
    run = dataclasses.replace(run, mesh=mesh, ladder=(dataclasses.replace(run.ladder[0], **rung),))
    with pytest.raises(ConfigError) as error:
        check_model(run.mesh, run.model, run.ladder)
    assert str(error.value) == message


SIZES = {"data": 1, "fsdp": 4, "tensor": 2, "sequence": 1}


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("text.layers.attn.q.kernel", (2, 32, 16), (None, "fsdp", "tensor")),
        ("text.layers.mlp.down.kernel", (2, 48, 32), (None, "tensor", "fsdp")),
        ("text.embed.embedding", (284, 32), ("tensor", "fsdp")),
        ("text.lm_head.kernel", (32, 284), ("fsdp", "tensor")),
        ("text.layers.attn.q.bias", (2, 16), (None, "tensor")),
        ("text.norm.scale", (32,), (None,)),
        ("network.layers.0.cross.kv.kernel", (32, 64), ("fsdp", "tensor")),
        ("network.layers.0.temporal.out.kernel", (16, 32), ("tensor", "fsdp")),
        ("network.layers.0.cross.gate", (), ()),
        ("network.head.down.kernel", (16, 2), ("tensor", None)),  # two scores stay whole
        ("text.layers.input_norm.scale", (28, 32), (None, None)),
        ("vision.patch_embed.kernel", (588, 1280), (None, "fsdp")),
        ("text.layers.attn.o.lora_b", (2, 8, 32), (None, None, "fsdp")),
        ("x.q.kernel", (3, 16), (None, "tensor")),  # 3 rows cannot be shared out
        ("x.q.kernel", (8, 15), ("fsdp", None)),
    ],
)
def test_parameters_lie_as_the_table_says(name, shape, expected):
    assert tuple(param_spec(name.split("."), shape, SIZES)) == expected


def test_what_is_multiplied_with_is_whole_along_fsdp():
    assert tuple(param_spec(("q", "kernel"), (32, 16), SIZES, gathered=True)) == (None, "tensor")

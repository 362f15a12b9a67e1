"""A plan counts what the compiled program does, and says what it cannot."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mres_jax import testing
from mres_jax.cli import main
from mres_jax.config import MeshConfig
from mres_jax.data.types import Rung
from mres_jax.errors import ConfigError, RunError
from mres_jax.geometry import Grid
from mres_jax.inference.cost import text_flops
from mres_jax.training.meshes import mesh_of
from mres_jax.training.planning import answering, compiled
from mres_jax.training.planning.answering import compile_decode
from mres_jax.training.planning.contents import Contents
from mres_jax.training.planning.epochs import price_epoch, price_policies
from mres_jax.training.planning.hlo import read_work
from mres_jax.training.planning.plan import fitted, plan_run, spec_for_shapes
from mres_jax.training.planning.topologies import parse_topology

# Two groups of four gather in each of three turns of a loop; then all eight add up once.
EXCHANGES = """
HloModule jit_step, num_partitions=8

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%body (state: (s32[], bf16[16,32])) -> (s32[], bf16[16,32]) {
  %state = (s32[], bf16[16,32]{1,0}) parameter(0)
  %shard = bf16[16,32]{1,0} get-tuple-element(%state), index=1
  %whole = bf16[64,32]{1,0} all-gather(%shard), replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}
  %n = s32[] get-tuple-element(%state), index=0
  %part = bf16[16,32]{1,0} slice(%whole), slice={[0:16], [0:32]}
  ROOT %next = (s32[], bf16[16,32]{1,0}) tuple(%n, %part)
}

%condition (state: (s32[], bf16[16,32])) -> pred[] {
  %state = (s32[], bf16[16,32]{1,0}) parameter(0)
  %n = s32[] get-tuple-element(%state), index=0
  %three = s32[] constant(3)
  ROOT %less = pred[] compare(%n, %three), direction=LT
}

ENTRY %main (x: (s32[], bf16[16,32]), y: f32[10]) -> f32[10] {
  %x = (s32[], bf16[16,32]{1,0}) parameter(0)
  %loop = (s32[], bf16[16,32]{1,0}) while(%x), condition=%condition, body=%body
  %y = f32[10]{0} parameter(1)
  ROOT %total = f32[10]{0} all-reduce(%y), replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add
}
"""

# One gathering on one channel, in pieces beside two products, as the TPU's compiler writes it.
IN_PIECES = """
HloModule jit_step, num_partitions=4

%begin (p: bf16[8,16]) -> (bf16[8,16], bf16[32,16]) {
  %p = bf16[8,16]{1,0} parameter(0)
  %g = bf16[32,16]{1,0} all-gather(%p), channel_id=5, replica_groups={{0,1,2,3}}, dimensions={0}
  ROOT %b = (bf16[8,16], bf16[32,16]) custom-call(%g), custom_call_target="AsyncCollectiveStart"
}

%beside (p: bf16[8,16], w: bf16[32,16], x: f32[2,4], y: f32[4,2]) -> (f32[2,2], bf16[32,16]) {
  %p = bf16[8,16]{1,0} parameter(0)
  %w = bf16[32,16]{1,0} parameter(1)
  %g1 = bf16[32,16]{1,0} all-gather(%p), channel_id=5, replica_groups={{0,1,2,3}}, dimensions={0}
  %x = f32[2,4]{1,0} parameter(2)
  %y = f32[4,2]{1,0} parameter(3)
  %made = f32[2,2]{1,0} dot(%x, %y), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %both = (f32[2,2], bf16[32,16]) tuple(%made, %w)
}

ENTRY %main (p: bf16[8,16], x: f32[2,4], y: f32[4,2]) -> f32[2,2] {
  %p = bf16[8,16]{1,0} parameter(0)
  %x = f32[2,4]{1,0} parameter(1)
  %y = f32[4,2]{1,0} parameter(2)
  %start = (bf16[8,16], bf16[32,16]) fusion(%p), kind=kCustom, calls=%begin
  %whole = bf16[32,16]{1,0} get-tuple-element(%start), index=1
  %one = (f32[2,2], bf16[32,16]) fusion(%p, %whole, %x, %y), kind=kOutput, calls=%beside
  %first = f32[2,2]{1,0} get-tuple-element(%one), index=0
  %two = (f32[2,2], bf16[32,16]) fusion(%p, %whole, %x, %y), kind=kOutput, calls=%beside.2
  ROOT %second = f32[2,2]{1,0} get-tuple-element(%two), index=0
}
"""
_beside = IN_PIECES[IN_PIECES.index("%beside") : IN_PIECES.index("ENTRY")]
IN_PIECES = IN_PIECES.replace("ENTRY", _beside.replace("%beside", "%beside.2") + "ENTRY")


@pytest.mark.parametrize(
    ("text", "name", "slice_name", "chips", "hosts", "devices"),
    [
        ("v5e:4x4", "v5e:4x4", "v5litepod-16", 16, 4, 16),
        ("v5e-16", "v5e:4x4", "v5litepod-16", 16, 4, 16),
        ("v5litepod-256", "v5e:16x16", "v5litepod-256", 256, 64, 256),
        ("v5e-8", "v5e:2x4", "v5litepod-8", 8, 1, 8),
        ("v5p-8", "v5p:2x2x1", "v5p-8", 4, 1, 4),
        ("v5p-1024", "v5p:8x8x8", "v5p-1024", 512, 128, 512),
        ("V6E:16X16", "v6e:16x16", "v6e-256", 256, 64, 256),
        ("tpu7x:2x2x1", "tpu7x:2x2x1", "tpu7x-8", 4, 1, 8),
        ("gpu:h200x8", "gpu:h200x8", "gpu:h200x8", 8, 1, 8),
    ],
)
def test_a_slice_has_one_meaning_under_all_its_names(text, name, slice_name, chips, hosts, devices):
    found = parse_topology(text)
    assert (found.name, found.slice_name) == (name, slice_name)
    assert (found.chips, found.hosts, found.devices) == (chips, hosts, devices)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("v5e:4x5", "The nearest is v5e:4x4 (v5litepod-16)."),
        ("v5litepod-17", "The nearest is v5e:4x4 (v5litepod-16)."),
        ("v5p-300", "The nearest is v5p:4x4x8 (v5p-256)."),
        ("v5x:4x4", "Did you mean 'v5e:4x4'?"),
        ("gpu:h200x9", "The nearest is gpu:h200x8."),
    ],
)
def test_a_name_that_does_not_exist_is_one_line_with_the_nearest(text, hint):
    with pytest.raises(ConfigError) as error:
        parse_topology(text)
    assert str(error.value) == (
        f"plan: no topology {text!r}. {hint} Write a slice as v5e:4x4 or v5litepod-16 "
        "(generations v4, v5p, tpu7x, v5e, v6e), or a machine as gpu:h200x8 (h100, h200, b200)."
    )


def test_products_in_a_loop_count_as_often_as_it_turns():
    def layers(x, weights):
        def body(x, w):
            return jnp.tanh(x @ w) @ w.T, None

        return jax.lax.scan(body, x, weights)[0]

    x, weights = jnp.zeros((8, 16)), jnp.zeros((5, 16, 24))
    text = jax.jit(layers).lower(x, weights).compile().as_text()
    assert read_work(text or "").flops == 5 * 2 * (2 * 8 * 16 * 24)


@pytest.mark.parametrize(
    "groups", ["[2,4]<=[4,2]T(1,0)", "{{0,2,4,6},{1,3,5,7}}", "mesh['a'=4,'b'=2] {'a'}"]
)
def test_exchanges_count_by_kind_and_group_as_often_as_their_loop_turns(groups):
    work = read_work(EXCHANGES.replace("[2,4]<=[4,2]T(1,0)", groups))
    assert work.sent == {
        ("all-gather", (0, 2, 4, 6)): 3 * (64 * 32 * 2) * 3 / 4,
        ("all-reduce", (0, 1, 2, 3, 4, 5, 6, 7)): 2 * 40 * 7 / 8,
    }


@pytest.mark.parametrize("behind", ["", ", u32[]{:S(2)}, u32[]{:S(2)}"])
def test_what_is_sent_to_a_neighbour_counts_where_it_starts(behind):
    text = f"""
HloModule jit_step, num_partitions=2

ENTRY %main (x: bf16[16,32]) -> bf16[16,32] {{
  %x = bf16[16,32]{{1,0}} parameter(0)
  %go = (bf16[16,32]{{1,0}}, bf16[16,32]{{1,0}}{behind}) collective-permute-start(%x), channel_id=1, source_target_pairs={{{{0,1}},{{1,0}}}}
  ROOT %come = bf16[16,32]{{1,0}} collective-permute-done(%go)
}}
"""  # noqa: E501
    assert read_work(text).sent == {("collective-permute", (0, 1)): 16 * 32 * 2}


def test_an_exchange_in_pieces_counts_once_and_what_is_handed_on_is_not_read():
    work = read_work(IN_PIECES)
    assert work.sent == {("all-gather", (0, 1, 2, 3)): 32 * 16 * 2 * 3 / 4}
    products = 2 * (2 * 4 + 4 * 2 + 2 * 2) * 4
    assert work.memory_bytes == products + (8 + 32) * 16 * 2
    assert work.flops == 2 * 2 * (2 * 4 * 2)


@pytest.mark.parametrize(("step", "turns"), [(1, 3), (2, 2), (3, 1)])
def test_a_loop_that_was_unrolled_turns_as_much_less_often(step, turns):
    counted = f"""%one = s32[] constant(1)
  %m = s32[] add(%n, %one)
  %rest = s32[] constant({step - 1})
  %k = s32[] add(%rest, %m)
  ROOT %next = (s32[], bf16[16,32]{{1,0}}) tuple(%k, %part)"""
    ended = "ROOT %next = (s32[], bf16[16,32]{1,0}) tuple(%n, %part)"
    assert ended in EXCHANGES
    sent = read_work(EXCHANGES.replace(ended, counted)).sent
    assert sent["all-gather", (0, 2, 4, 6)] == turns * (64 * 32 * 2) * 3 / 4


def test_a_sum_of_which_each_device_keeps_a_shard_sends_half():
    work = read_work("""
HloModule jit_step, num_partitions=4

%all-reduce-scatter.1 (p: bf16[32,16]) -> bf16[8,16] {
  %p = bf16[32,16]{1,0} parameter(0)
  %whole = bf16[32,16]{1,0} all-reduce(%p), channel_id=5, replica_groups={{0,1,2,3}}
  %at = s32[] constant(0)
  ROOT %shard = bf16[8,16]{1,0} dynamic-slice(%whole, %at, %at), dynamic_slice_sizes={8,16}
}

ENTRY %main (x: bf16[32,16]) -> bf16[8,16] {
  %x = bf16[32,16]{1,0} parameter(0)
  ROOT %y = bf16[8,16]{1,0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1
}
""")
    assert work.sent == {("reduce-scatter", (0, 1, 2, 3)): 32 * 16 * 2 * 3 / 4}
    assert work.memory_bytes == (32 + 8) * 16 * 2


def test_of_stacked_weights_a_product_reads_its_layer_and_a_kernel_what_it_says():
    work = read_work("""
%take (w: bf16[28,16,24], at: s32[]) -> bf16[16,24] {
  %w = bf16[28,16,24]{2,1,0} parameter(0)
  %at = s32[] parameter(1)
  %one = bf16[1,16,24]{2,1,0} dynamic-slice(%w, %at), dynamic_slice_sizes={1,16,24}
  ROOT %b = bf16[16,24]{1,0} bitcast(%one)
}

%product (w: bf16[28,16,24], at: s32[], x: bf16[8,16]) -> bf16[8,24] {
  %w = bf16[28,16,24]{2,1,0} parameter(0)
  %at = s32[] parameter(1)
  %x = bf16[8,16]{1,0} parameter(2)
  %layer = bf16[16,24]{1,0} fusion(%w, %at), kind=kLoop, calls=%take
  ROOT %y = bf16[8,24]{1,0} convolution(%x, %layer), dim_labels=bf_io->bf
}

ENTRY %main (w: bf16[28,16,24], at: s32[], x: bf16[8,16]) -> bf16[8,24] {
  %w = bf16[28,16,24]{2,1,0} parameter(0)
  %at = s32[] parameter(1)
  %x = bf16[8,16]{1,0} parameter(2)
  %y = bf16[8,24]{1,0} fusion(%w, %at, %x), kind=kOutput, calls=%product
  ROOT %z = bf16[8,24]{1,0} custom-call(%w, %y), custom_call_target="tpu_custom_call", \
metadata={op_name="a/kernel"}, backend_config={"cost_estimate":{"bytes_accessed":"640"}}
}
""")
    layer, at, x, y = 2 * 16 * 24, 4, 2 * 8 * 16, 2 * 8 * 24
    assert work.memory_bytes == layer + at + x + y + 640
    assert work.flops == 2 * 8 * 16 * 24


def test_a_loop_without_a_number_of_turns_is_not_guessed_but_may_be_told():
    endless = EXCHANGES.replace("%three = s32[] constant(3)", "%three = s32[] negate(%n)")
    with pytest.raises(ValueError, match="loop: how often this loop turns"):
        read_work(endless)
    two = EXCHANGES.replace("ROOT %less", "%zero = s32[] constant(0)\n  ROOT %less")
    with pytest.raises(ValueError, match="loop: how often this loop turns"):
        read_work(two)
    told, written = read_work(endless, turns=5).sent, read_work(EXCHANGES).sent
    gathered = ("all-gather", (0, 2, 4, 6))
    assert told[gathered] == pytest.approx(5 / 3 * written[gathered])


@pytest.mark.parametrize("tiny", ["tiny_smolvlm", "tiny_qwen3_vl", "tiny_llava_hr"])
def test_shapes_need_no_tokenizer(tiny):
    made = getattr(testing, tiny)()
    spec = spec_for_shapes(made.model.config)
    assert (spec.stride, spec.merge_size) == (made.spec.stride, made.spec.merge_size)


def test_a_program_that_turns_as_its_data_say_is_refused_with_the_usual_reason():
    def powers(x, count):
        return jax.lax.fori_loop(0, count, lambda _, y: y @ y, x)

    lowered = jax.jit(powers).lower(jnp.zeros((8, 8)), 3)
    mesh = mesh_of(MeshConfig(), jax.devices())
    with pytest.raises(RunError, match=r"how often this loop turns.*ladder with shorter rungs"):
        compiled.compile_lowered(lowered, mesh, arguments=0)


def test_decoding_is_planned_as_a_token_of_every_row(tmp_path):
    run = testing.tiny_run(tmp_path)
    prompts = Contents(grids=(Grid(1, 4, 4),) * 4, lengths=(100,) * 4, scored=0)
    found = compile_decode(run, prompts, mesh_of(run.mesh, jax.devices()[:1]))
    assert found.contents == "a token for each of 4 answers, 256 positions of cache each"
    text, work = run.model.text_config, found.compiled.work
    products = text_flops(text, [1] * 4, 4)
    looked_at = text_flops(text, [256] * 4, 4) - text_flops(text, [255] * 4, 4)
    assert products < work.flops < products + 4 * looked_at
    cache = 2 * text.num_hidden_layers * 4 * 256 * text.num_key_value_heads * text.head_dim * 4
    assert found.compiled.argument_bytes > found.parameters + cache
    assert work.memory_bytes > found.parameters


@pytest.mark.parametrize(("sequence", "share"), [(1, 1), (2, 2), (4, 1)])
def test_a_planned_cache_lies_as_the_program_lays_it(tmp_path, sequence, share):
    """Two heads over `sequence`, where that divides them."""
    run = testing.tiny_run(tmp_path)
    devices = np.full((1, 1, 1, sequence), jax.devices()[0])  # nothing is computed on them
    mesh = jax.sharding.Mesh(devices, ("data", "fsdp", "tensor", "sequence"))
    keys = answering._cache(run, mesh, 4, 256).keys
    config = run.model.text_config
    assert config.num_key_value_heads == 2
    expected = config.num_hidden_layers, 4, 2 // share, 256, config.head_dim
    assert keys.sharding.shard_shape(keys.shape) == expected


@pytest.mark.parametrize(
    ("message", "temporaries"),
    [
        ("XLA: Ran out of memory in memory space hbm. Used 20.5G of 15.75G hbm.", 20.5 * 2**30 - 7),
        (
            "Ran out of memory on HBM, the total memory required for HLO temporaries (24.03G) "
            "exceeds available HBM (15.75G).",
            24.03 * 2**30 + 5,
        ),
        ("INTERNAL: something else", None),
    ],
)
def test_what_is_missing_is_read_from_both_ways_in_which_the_compiler_says_it(message, temporaries):
    found = compiled._asked_bytes(message, arguments=7, sums=5)
    assert found == (None if temporaries is None else round(temporaries))


def test_a_run_without_a_mesh_is_planned_with_shares_for_all_and_a_pack_for_each(tmp_path):
    run, notes = fitted(testing.tiny_run(tmp_path, accumulation=3), parse_topology("v5e-16"))
    assert run.mesh == MeshConfig(fsdp=16)
    assert run.accumulation == 16
    assert notes == [
        "the run names no mesh; planned with fsdp=16",
        "accumulation 3 -> 16: a pack for each rank",
    ]


def test_a_mesh_for_another_slice_is_refused_with_the_nearest(tmp_path):
    run = testing.tiny_run(tmp_path, accumulation=4, mesh=MeshConfig(fsdp=4, tensor=2))
    with pytest.raises(ConfigError) as error:
        fitted(run, parse_topology("v5e:4x4"))
    assert str(error.value) == (
        "plan: the mesh data=1 fsdp=4 tensor=2 sequence=1 takes 8 devices, v5e:4x4 has 16. "
        "Take mesh.data=2, mesh.fsdp=4."
    )


def test_an_epoch_is_priced_by_its_packs_and_padding_costs_what_rows_differ_by(tmp_path):
    rungs = tuple(
        Rung(max_patches=size, max_tokens=size, max_views=9, max_examples=9) for size in (40, 80)
    )
    run = testing.tiny_run(tmp_path, ladder=rungs, accumulation=2)
    table = np.array([(10, 10, 1), (70, 30, 1)] * 6)
    price = price_epoch("native", rungs[1:] * 6, table, run, 3.0)
    assert (price.packs, price.steps, price.tokens) == (6, 3, 240)
    assert price.hours == pytest.approx(3 * 3.0 / 3_600)
    assert price.tokens_per_s == pytest.approx(240 / 9.0)
    padded = 6 * (2 * 70 / 80)  # two rows a batch, each of 70 patches
    assert price.padded_tokens_per_s == pytest.approx(240 / (padded * 3.0 / 2))
    halves = price_epoch("native", rungs[:1] * 6, table, run, 3.0)
    assert halves.hours == pytest.approx(price.hours / 2)
    assert price_epoch("native", rungs, table, run, None).hours is None


def test_policies_are_priced_on_the_data_of_the_run_and_a_refused_one_says_why(tmp_path):
    run = testing.tiny_run(tmp_path)
    native, half, large = price_policies(run, ("native", "scale:0.5", "fixed:512,mode=pad"), 1.0)
    assert native.rows == half.rows == 24
    assert half.patches < native.patches
    assert half.hours < native.hours
    assert large.rows == 0
    assert "needs 4096 patches, but max_patches=512" in large.refused


def test_without_the_tpu_compiler_one_line_says_what_installs_it(monkeypatch):
    monkeypatch.setattr(compiled.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RunError) as error:
        compiled.load_compiler()
    assert str(error.value) == (
        "plan: the TPU compiler is not installed. Install it with pip install 'mres-jax[aot]'; it "
        "needs no TPU."
    )


def test_on_gpus_state_and_activations_are_counted_and_the_rest_is_said_to_be_unknown(tmp_path):
    run = testing.tiny_run(tmp_path, accumulation=8)
    plan = plan_run(run, parse_topology("gpu:h200x8"))
    alone = plan_run(
        dataclasses.replace(run, mesh=MeshConfig(data=8)), parse_topology("gpu:h200x8")
    )
    assert plan.mesh["fsdp"] == 8
    assert plan.memory.optimiser == pytest.approx(2 * plan.memory.parameters, rel=0.01)
    assert plan.memory.parameters < alone.memory.parameters / 4  # small vectors stay whole
    assert plan.memory.activations == alone.memory.activations > 0
    assert (plan.memory.other, plan.step_s, plan.fits) == (None, None, None)
    assert any("counted, not compiled" in note for note in plan.notes)
    json.dumps(plan.to_dict())


def test_recomputing_keeps_less(tmp_path):
    topology = parse_topology("gpu:h200x1")
    plans = [
        plan_run(testing.tiny_run(tmp_path, remat=remat), topology).memory.activations
        for remat in ("none", "full")
    ]
    assert plans[1] < plans[0]


def test_the_command_refuses_an_unknown_slice_before_any_work(tmp_path, capsys):
    assert main(["plan", "configs/tiny/pages.py", "--topology", "v9-16"]) == 2
    assert "plan: no topology 'v9-16'." in capsys.readouterr().err


def test_a_compiler_that_fails_is_one_line():
    class Lowered:
        def compile(self):
            raise jax.errors.JaxRuntimeError("INTERNAL: RET_CHECK failure (a.cc:1)\n*** stack")

    mesh = mesh_of(MeshConfig(), jax.devices()[:1])
    with pytest.raises(RunError, match=r"failed on the program.*RET_CHECK failure \(a\.cc:1\) Try"):
        compiled.compile_lowered(Lowered(), mesh, arguments=0)

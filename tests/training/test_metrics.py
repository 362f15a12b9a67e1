"""Numbers reach every writer a run names, and rows are means and rates of what they say."""

import json
import struct
import sys
import types

import numpy as np
import pytest
from flax import nnx

from mres_jax import testing
from mres_jax.config import Evaluate, MeshConfig, Rows
from mres_jax.data.packing import empty_pack
from mres_jax.data.types import Pack, Rung
from mres_jax.errors import ConfigError
from mres_jax.models.registry import family_of
from mres_jax.training import loop, meter as meters
from mres_jax.training.checkpoints import Checkpoints
from mres_jax.training.chips import CHIPS, peak_flops
from mres_jax.training.flops import passes
from mres_jax.training.learner import Learner
from mres_jax.training.metrics import append_rows, drop_rows_after, open_writers, read_rows
from mres_jax.training.progress import line, progress_bar
from mres_jax.training.setup import set_up_abstractly

ROW = {"step": 3, "loss": 1.5, "epoch": 0, "time": 100.0}


def write(run, *, first: int = 0, is_main: bool = True) -> None:
    with open_writers(run, first=first, is_main=is_main) as writers:
        writers.row("train", ROW)
        writers.row("held_out", ROW | {"loss": 2.5})
        writers.sample(3, "00", np.zeros((8, 12, 3), np.uint8), "What? <b>")
        writers.sample(3, "01", None, "text alone")


def events(directory) -> list:
    """What an event file holds, in the framing of TFRecord."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for file in sorted(directory.iterdir()):
        content, at = file.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            found.append(Event.FromString(content[at + 12 : at + 12 + length]))
            at += 16 + length
    return found


def test_json_lines_are_always_written_and_go_on_after_the_steps_kept(tmp_path):
    run = testing.tiny_run(tmp_path)
    write(run)
    write(run, first=3)
    assert [row["loss"] for row in read_rows(tmp_path / "metrics.jsonl")] == [1.5, 1.5]
    write(run, first=2)
    assert read_rows(tmp_path / "evaluations.jsonl") == [ROW | {"loss": 2.5}]
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "evaluations.jsonl",
        "metrics.jsonl",
    ]


# all that `str.splitlines` takes for the end of a line, beside the ends of JSON lines
ENDS_OF_LINES = "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"


def test_rows_whose_texts_hold_other_ends_of_lines_stay_byte_for_byte(tmp_path):
    file = tmp_path / "rollouts.jsonl"
    rows = [
        {"step": step, "answers": [f"a{end}b\n\r", "\ud800 half a pair", "五"]}
        for step, end in enumerate(ENDS_OF_LINES)
    ]
    append_rows(file, rows)
    written = file.read_bytes().split(b"\n")
    assert read_rows(file) == rows
    assert "五" in written[0].decode()
    drop_rows_after(file, 5)
    assert file.read_bytes().split(b"\n") == [*written[:6], b""]
    assert read_rows(file) == rows[:6]


@pytest.mark.parametrize("cut", [1, 4, 20], ids=["newline", "within a letter", "text"])
def test_a_row_behind_one_that_was_cut_short_has_a_line_of_its_own(cut, tmp_path):
    file = tmp_path / "rows.jsonl"
    append_rows(file, [{"step": 1}, {"step": 2, "text": "cut here 五"}])
    file.write_bytes(file.read_bytes()[:-cut])
    drop_rows_after(file, 2)
    append_rows(file, [{"step": 3}])
    assert [row["step"] for row in read_rows(file)] == ([1, 2, 3] if cut == 1 else [1, 3])
    assert file.read_bytes().count(b"\n") == len(read_rows(file))


def test_tensorboard_gets_numbers_pictures_and_texts_and_hides_what_is_done_again(tmp_path):
    run = testing.tiny_run(tmp_path, metrics=("tensorboard",))
    write(run)
    write(run, first=2)
    found = events(tmp_path / "tensorboard")
    values = {value.tag: value for event in found for value in event.summary.value}
    assert values["train/loss"].simple_value == 1.5
    assert values["held_out/loss"].simple_value == 2.5
    assert (values["samples/00"].image.height, values["samples/00"].image.width) == (8, 12)
    assert any(b"text alone" in x for x in values["samples/01/text_summary"].tensor.string_val)
    assert "train/time" not in values
    starts = [event.step for event in found if event.session_log.status]
    assert starts == [3]


def test_wandb_gets_rows_under_our_steps_offline_unless_there_is_a_key(tmp_path, monkeypatch):
    """Of the module itself only the calls are checked here; it is an extra."""
    calls: list = []

    class FakeRun:
        def log(self, row):
            calls.append(row)

        def define_metric(self, name, step_metric):
            calls.append((name, step_metric))

        def finish(self):
            calls.append("finished")

    fake = types.SimpleNamespace(
        init=lambda **options: calls.append(options) or FakeRun(),
        Image=lambda pixels, caption: ("image", pixels.shape, caption),
        Html=lambda text: text,
    )
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    write(testing.tiny_run(tmp_path, metrics=("wandb",)))
    options, _, _, row, *_, picture, text, end = calls
    assert (options["mode"], options["resume"]) == ("offline", "allow")
    assert options["config"]["optimizer"]["learning_rate"] == 1e-3
    assert row == {"step": 3, "train/loss": 1.5, "train/epoch": 0.0}
    assert picture["samples/00"] == ("image", (8, 12, 3), "What? <b>")
    assert text["samples/01"] == "<pre>text alone</pre>"
    assert end == "finished"


def test_other_processes_write_nothing(tmp_path):
    write(testing.tiny_run(tmp_path, metrics=("tensorboard",)), is_main=False)
    assert not list(tmp_path.iterdir())


def test_a_writer_that_is_not_there_is_one_clear_line(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"unknown writer 'tensorbord'\. Did you mean 'tensorb"):
        testing.tiny_run(tmp_path, metrics=("tensorbord",))
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"wandb, which is not installed: pip install"):
        write(testing.tiny_run(tmp_path, metrics=("wandb",)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_packs": 0, "num_questions": 0}, "one of them above 0"),
        ({"num_packs": 0}, r"best='loss' needs num_packs above 0"),
        ({"every_steps": 0}, "every_steps=0 must be at least 1"),
    ],
)
def test_an_evaluation_of_nothing_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        Evaluate(**changes)


def test_rows_need_some_held_out_and_never_what_is_trained_on(tmp_path):
    rows = Rows(path="a.json", images="x")
    with pytest.raises(ConfigError, match=r"no data: set held_out of Rows, or evaluate\.data"):
        testing.tiny_run(tmp_path, data=(rows,), evaluate=Evaluate())
    with pytest.raises(ConfigError, match=r"a\.json, which the run trains on"):
        testing.tiny_run(tmp_path, data=(rows,), evaluate=Evaluate(data=(rows,)))


class Clock:
    """A clock that is set by hand."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def time(self) -> float:
        return 1e9 + self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(meters, "time", clock)
    return clock


def pack(patches: int, tokens: int) -> Pack:
    """In rooms of 10 and 20."""
    rung = Rung(max_patches=10, max_tokens=20, max_views=1, max_examples=1)
    return empty_pack(rung, testing.tiny_spec(testing.tiny_tokenizer()))._replace(
        patch_segment_ids=np.arange(10) < patches, segment_ids=np.arange(20) < tokens
    )


def take_step(meter, clock, step: int, *, loss: float = 1.0, patches: int = 5, **more):
    clock.now += 1.0  # waits for the pack
    meter.wait_ended()
    meter.saw(pack(patches, 3 * patches))
    clock.now += 3.0
    return meter.add(step, {"loss": np.float32(loss)} | more)


def test_rates_leave_out_what_was_no_step_and_shares_are_of_the_steps(clock):
    meter = meters.Meter(2, count_flops=lambda pack: 40.0, peak_flops=100.0)
    assert take_step(meter, clock, 1, loss=1.0) is None
    with meter.pause("checkpoint"):
        clock.now += 50.0
    row = take_step(meter, clock, 2, loss=2.0)
    assert row == {
        "step": 2,
        "loss": 1.5,
        "patch_efficiency": 0.5,
        "token_efficiency": 0.75,
        "seconds_per_step": 4.0,
        "patches_per_s": 10 / 8,
        "tokens_per_s": 30 / 8,
        "data_wait_share": 0.25,
        "flops_per_s": 10.0,
        "mfu": 0.1,
        "checkpoint_seconds": 50.0,
        "time": 1e9 + 58.0,
    }
    following = [take_step(meter, clock, step) for step in (3, 4)][1]
    assert "checkpoint_seconds" not in following


def test_how_even_ranks_are_is_told_of_all_steps_of_a_row_across_a_cut(clock):
    first = meters.Meter(2)
    first.shared(30.0, 20.0)
    take_step(first, clock, 1)
    second = meters.Meter(2, json.loads(json.dumps(first.sums_so_far())))
    second.shared(15.0, 10.0)
    row = take_step(second, clock, 2)
    assert row["attention_imbalance"] == pytest.approx(45 / 30 - 1)
    assert "attention_imbalance" not in take_step(meters.Meter(1), clock, 1)


def test_a_step_that_was_skipped_counts_in_no_mean(clock):
    meter = meters.Meter(2)
    take_step(meter, clock, 1, loss=3.0, skipped=np.float32(0))
    row = take_step(meter, clock, 2, loss=0.0, skipped=np.float32(1))
    assert (row["loss"], row["skipped"]) == (3.0, 1)


def test_means_go_on_where_a_run_was_cut_between_two_rows(clock):
    whole, first = meters.Meter(3), meters.Meter(3)
    for meter in (whole, first):
        take_step(meter, clock, 1, loss=0.1, patches=2)
        take_step(meter, clock, 2, loss=0.7)
    kept = json.loads(json.dumps(first.sums_so_far()))
    rows = [take_step(m, clock, 3, loss=0.3) for m in (whole, meters.Meter(3, kept))]
    for name in ("loss", "patch_efficiency", "token_efficiency"):
        assert rows[0][name] == rows[1][name]


def test_peaks_are_told_apart_by_the_device_s_name():
    assert peak_flops("TPU v5 lite") == 197e12
    assert peak_flops("TPU v5") == peak_flops("TPU v5p") == 459e12
    assert peak_flops("TPU7x") == 2307e12 / 2  # two devices a chip
    assert peak_flops("NVIDIA H100 PCIe") < (peak_flops("NVIDIA H100 80GB HBM3") or 0)
    assert peak_flops("NVIDIA L40S") == 362e12
    assert peak_flops("NVIDIA L400") is None
    assert peak_flops("cpu") is None
    for chip in CHIPS.values():  # planning and measuring share one table
        for name in chip.names or (chip.kind,):
            assert chip.devices * (peak_flops(name) or 0) == chip.flops


@pytest.mark.parametrize("count", [1, 2, 3])
def test_files_of_bad_rows_are_cut_whoever_wrote_them_each_by_one_process(
    tmp_path, monkeypatch, count
):
    names = ["bad_rows.jsonl", "bad_rows.2.jsonl", "bad_rows.5.jsonl"]  # 1, 3 and 4 had none
    for name in names:
        rows = "".join(json.dumps({"step": step}) + "\n" for step in (1, 2, 3))
        (tmp_path / name).write_text(rows)
    cut = []
    plain = loop.drop_rows_after
    monkeypatch.setattr(loop, "drop_rows_after", lambda *args: cut.append(args[0]) or plain(*args))
    monkeypatch.setattr(loop.jax, "process_count", lambda: count)
    for index in range(count):
        monkeypatch.setattr(loop.jax, "process_index", lambda index=index: index)
        loop._drop_bad_rows_after(tmp_path, 1)
    assert sorted(path.name for path in cut) == sorted(names)
    assert all([row["step"] for row in read_rows(tmp_path / name)] == [1] for name in names)


@pytest.mark.parametrize("count", [1, 4])
def test_the_peak_of_a_run_is_that_of_all_its_devices(tmp_path, monkeypatch, count):
    monkeypatch.setattr(loop, "peak_flops", lambda kind: 100.0)
    run = testing.tiny_run(tmp_path, accumulation=4, mesh=MeshConfig(fsdp=count))
    state = set_up_abstractly(run, run.schedule).state
    checkpoints = Checkpoints(tmp_path, keep=1)
    steps = loop._Steps(run, run.schedule, lambda epoch: None, checkpoints, {}, print)
    assert steps._meter(state).peak_flops == 100.0 * count


def test_a_line_says_what_matters_and_when_it_ends():
    row = ROW | {"accuracy": 0.25, "learning_rate": 1e-3, "seconds_per_step": 2.0}
    row |= {"tokens_per_s": 1234.5, "data_wait_share": 0.06, "grad_norm": 7.0}
    assert line(row, 103) == (
        "step     3/103 loss 1.500 accuracy 0.250 lr 1.00e-03 2.00 s/step 1,234 tokens/s wait 6% "
        "left 3 min"
    )


def test_the_bar_is_on_stderr_and_only_where_it_is_asked_for(capsys):
    for shown in (False, True):
        with progress_bar("tiny", first=0, last=4, shown=shown) as bar:
            bar.step(2, ROW)
        out, err = capsys.readouterr()
        assert not out
        assert ("tiny" in err and "2/4" in err) == shown


def test_frozen_parts_cost_fewer_passes(tmp_path):
    """All trained: forward, gradient of activations, gradient of kernels, of both parts."""
    config = testing.tiny_run(tmp_path).model

    def split(*trained: str):
        learner = Learner(
            family_of(config).Model(config, rngs=nnx.Rngs(0)),
            patch_classes={},
            auxiliary_weight=0.0,
            rngs=nnx.Rngs(0),
        )
        _, params, frozen = nnx.split(learner, lambda path, _: path[1] in trained, ...)
        return passes(params, frozen)

    assert split("vision", "projector", "text") == (3.0, 3.0)
    assert split("text") == (1.0, 3.0)
    assert split("projector") == (1.0, 2.0)
    assert split("vision", "projector") == (3.0, 2.0)

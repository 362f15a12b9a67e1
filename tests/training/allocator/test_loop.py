"""Runs of an allocator: what they learn, write, drop and refuse, and that they go on as they were.

Answers come from a reader that costs nothing, so that nothing but the allocator is compiled.
"""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from mres_jax.config import BackboneTraining, LoRA, OptimizerConfig, Schedule, to_json
from mres_jax.errors import BadRowError, ConfigError, MresError, RunError
from mres_jax.resolution.allocator.store import load_allocator
from mres_jax.testing.runs import rows_without_clocks
from mres_jax.training.allocator import loop
from mres_jax.training.allocator.draws import pack_clips
from mres_jax.training.allocator.loop import train_allocator
from mres_jax.training.allocator.measures import crowding
from mres_jax.training.allocator.prompts import open_in_order, order_of_step
from mres_jax.training.metrics import read_rows

LARGE = "return float(int(answer.text) >= 6)"  # the first frame is looked at enlarged


def quiet(line):
    """Says nothing."""


def cut_short(file):
    """Leaves a picture its header, which is all that is read before it is asked about."""
    file.write_bytes(file.read_bytes()[:60])


@pytest.mark.slow
def test_a_planted_reward_is_raised_and_the_right_frame_grows(make_run, planted, tmp_path):
    run = make_run(
        body=LARGE,
        prompts=4,
        allocations=16,
        schedule=Schedule(num_steps=24, warmup_steps=0, kind="constant"),
    )
    found = train_allocator(run, parts=planted, log=quiet)
    rows = rows_without_clocks(tmp_path / "run")
    early, late = (np.mean([row["right"] for row in part]) for part in (rows[:4], rows[-4:]))
    assert found.step == 24
    assert late > early + 0.2
    assert {row["groups"] for row in rows} == {4}
    assert max(abs(row.get("policy_ratio", 1) - 1) for row in rows) < 1e-4  # one update: on-policy
    assert planted.eyes.looked == 6  # each clip once, then from disk
    # what was saved is what was trained, and says where it comes from
    stored = load_allocator(tmp_path / "run/allocator")
    assert stored.features == "mean"
    assert stored.facts["step"] == 24
    kernel = np.asarray(stored.network.head.down.kernel.get_value())
    np.testing.assert_array_equal(kernel, found.network.head.down.kernel.get_value())


@pytest.mark.slow
def test_a_run_that_was_cut_goes_on_bit_for_bit(make_run, planted, tmp_path):
    length = {"schedule": Schedule(num_steps=5, warmup_steps=0, kind="constant"), "updates": 2}
    whole = train_allocator(make_run("whole", body=LARGE, **length), parts=planted, log=quiet)
    # the reward ends the run in its fourth step, after the third was written but not saved
    bomb = tmp_path / "bomb"
    bomb.touch()
    body = "import os\npay.count = getattr(pay, 'count', 0) + 1\n"
    body += f"if pay.count > 3 * 8 + 2 and os.path.exists({str(bomb)!r}): raise KeyError('cut')\n"
    run = make_run("cut", body=body + LARGE, **length)
    with pytest.raises(KeyError, match="cut"):
        train_allocator(run, parts=planted, log=quiet)
    assert [row["step"] for row in rows_without_clocks(tmp_path / "cut")] == [1, 2, 3]
    bomb.unlink()
    again = train_allocator(run, parts=planted, log=quiet)
    assert rows_without_clocks(tmp_path / "cut") == rows_without_clocks(tmp_path / "whole")
    lines = [(tmp_path / name / "rollouts.jsonl").read_text() for name in ("cut", "whole")]
    assert lines[0] == lines[1]
    assert [row["step"] for row in read_rows(tmp_path / "cut/rollouts.jsonl")][-1] == 5
    np.testing.assert_array_equal(
        again.network.frame_proj.kernel.get_value(), whole.network.frame_proj.kernel.get_value()
    )


@pytest.mark.slow
def test_sigterm_in_rollouts_saves_behind_their_step_and_leaves_the_questions_to_the_next_start(
    make_run, planted, tmp_path
):
    length = {"schedule": Schedule(num_steps=4, warmup_steps=0, kind="constant"), "held_out": 2}
    whole = train_allocator(make_run("whole", body=LARGE, **length), parts=planted, log=quiet)
    body = "import os, signal\npay.count = getattr(pay, 'count', 0) + 1\n"
    body += "if pay.count == 10: os.kill(os.getpid(), signal.SIGTERM)\n"  # in the second step
    said = []
    run = make_run("cut", body=body + LARGE, **length)
    run = dataclasses.replace(run, checkpoint=dataclasses.replace(run.checkpoint, every_steps=3))
    stopped = train_allocator(run, parts=planted, log=said.append)
    assert stopped.step == 2
    assert "stopped by SIGTERM after step 2; saved" in said[-1]
    assert not (tmp_path / "cut/evaluations.jsonl").exists()  # nobody waits for answers
    assert load_allocator(tmp_path / "cut/allocator").facts["step"] == 2
    body = body.replace("== 10", "< 0")
    again = train_allocator(make_run("cut", body=body + LARGE, **length), parts=planted, log=quiet)
    assert rows_without_clocks(tmp_path / "cut") == rows_without_clocks(tmp_path / "whole")
    points = [
        rows_without_clocks(tmp_path / name, "evaluations.jsonl") for name in ("cut", "whole")
    ]
    assert points[0] == points[1]
    np.testing.assert_array_equal(
        again.network.frame_proj.kernel.get_value(), whole.network.frame_proj.kernel.get_value()
    )


@pytest.mark.slow
def test_a_run_killed_before_it_left_its_last_allocator_leaves_it_at_the_next_start(
    make_run, planted, tmp_path, monkeypatch
):
    plain = loop.save_allocator

    def killed(directory, network, *, features, facts):
        if facts["step"] == 2:
            raise KeyError("killed")
        plain(directory, network, features=features, facts=facts)

    run = make_run(body=LARGE, held_out=2)
    run = dataclasses.replace(run, checkpoint=dataclasses.replace(run.checkpoint, every_steps=1))
    with monkeypatch.context() as patched:
        patched.setattr(loop, "save_allocator", killed)
        with pytest.raises(KeyError, match="killed"):
            train_allocator(run, parts=planted, log=quiet)
    assert load_allocator(tmp_path / "run/allocator").facts["step"] == 1
    points = rows_without_clocks(tmp_path / "run", "evaluations.jsonl")
    assert [point["step"] for point in points] == [1, 2]
    found = train_allocator(run, parts=planted, log=quiet)
    stored = load_allocator(tmp_path / "run/allocator")
    assert found.step == stored.facts["step"] == 2
    assert stored.facts["accuracy"] == points[1]["accuracy"]
    kernel = np.asarray(stored.network.head.down.kernel.get_value())
    np.testing.assert_array_equal(kernel, found.network.head.down.kernel.get_value())
    assert rows_without_clocks(tmp_path / "run", "evaluations.jsonl") == points  # asked once


@pytest.mark.slow
def test_what_a_step_leaves_behind(make_run, planted, write_clips, tmp_path):
    lines = []
    data = write_clips(tmp_path, sizes=((32, 32),))  # 16 visual tokens, 4 at the least
    run = make_run(body=LARGE, data=data, retention=0.5, held_out=2)
    train_allocator(run, parts=planted, log=lines.append)
    (point,) = read_rows(tmp_path / "run/evaluations.jsonl")
    assert point["questions"] == 2
    assert point["retention"] <= 0.5
    assert point["fixed_retention"] == pytest.approx(point["retention"], abs=0.13)  # 2 of 16 tokens
    row = rows_without_clocks(tmp_path / "run")[-1]
    assert sum(row["scale_histogram"]) == pytest.approx(1, abs=1e-3)
    rollouts = read_rows(tmp_path / "run/rollouts.jsonl")
    assert len(rollouts) == 2 * 2 * 4
    assert {len(each["scales"]) for each in rollouts} == {4}
    mean = np.mean([each["retention"] for each in rollouts[8:]])
    assert row["retention"] == pytest.approx(mean, abs=1e-5)
    with Image.open(tmp_path / "run/strips/step_000002.png") as strip:
        assert strip.width > strip.height  # four frames side by side
    assert any("held out: accuracy" in line for line in lines)


@pytest.mark.slow
def test_groups_that_agree_are_dropped_counted_and_change_nothing(make_run, planted, tmp_path):
    body = "return float(row.id in ('r0', 'r1', 'r2'))"
    start = train_allocator(
        make_run("start", body=body, prompts=6, schedule=Schedule(num_steps=1), drop_agreeing=True),
        parts=planted,
        log=quiet,
    )
    (row,) = rows_without_clocks(tmp_path / "start")
    assert (row["groups_all_right"], row["groups_all_wrong"], row["groups_dropped"]) == (3, 3, 6)
    assert row["updates"] == 0
    assert "policy_loss" not in row
    assert all(each["dropped"] for each in read_rows(tmp_path / "start/rollouts.jsonl"))
    # a healthy allocator begins with the same scale everywhere, and still has it
    clip = planted.eyes.features([np.zeros((16, 16, 3), np.uint8)] * 2, "q")
    assert np.ptp(np.asarray(start.network.mean_scales(pack_clips([clip], max_clips=1)))) == 0


@pytest.mark.slow
def test_a_reward_that_is_no_number_ends_the_run_by_name(make_run, planted):
    run = make_run(body="return float('nan') if row.id == 'r3' else 0.5", prompts=6)
    with pytest.raises(RunError, match=r"prompt 'r3@1\.\d' has the reward nan, one of 4"):
        train_allocator(run, parts=planted, log=quiet)
    run = make_run("text", body="return 'good'")
    with pytest.raises(RunError, match="gave a str for row"):
        train_allocator(run, parts=planted, log=quiet)


@pytest.mark.slow
def test_empty_answers_earn_nothing_and_are_counted_control_tokens_are_refused(
    make_run, planted, tmp_path, monkeypatch
):
    plain = type(planted.answerer)._answer

    def empty(self, request, sample):
        answer = plain(self, request, sample)
        return type(answer)(**{**vars(answer), "text": " "})

    monkeypatch.setattr(type(planted.answerer), "_answer", empty)
    train_allocator(make_run("empty"), parts=planted, log=quiet)
    assert [row["empty_answers"] for row in rows_without_clocks(tmp_path / "empty")] == [8, 8]
    assert [row["right"] for row in rows_without_clocks(tmp_path / "empty")] == [0, 0]
    token = planted.spec.reserved_token_ids[0]

    def forbidden(self, request, sample):
        return type(plain(self, request, sample))(
            **{**vars(plain(self, request, sample)), "token_ids": (65, token)}
        )

    monkeypatch.setattr(type(planted.answerer), "_answer", forbidden)
    with pytest.raises(RunError, match=f"1 control tokens .* the first {token}"):
        train_allocator(make_run("forbidden"), parts=planted, log=quiet)


def test_scales_that_crowd_at_an_end_are_warned_of(make_run):
    run = make_run()
    row = {"step": 7, "scales_at_least": 0.95, "scales_at_most": 0.0}
    assert "step 7: 95 % of the scales crowd at the least end" in (crowding(row, run) or "")
    assert crowding({**row, "scales_at_least": 0.5}, run) is None
    assert "largest end" in (
        crowding({**row, "scales_at_least": 0, "scales_at_most": 1}, run) or ""
    )


def test_every_epoch_asks_each_row_once_in_an_order_of_its_own():
    rows = list(range(7))
    epochs = [
        [
            x
            for step in range(3 * e + 1, 3 * e + 4)
            for x in order_of_step(rows, step, count=2, seed=3)[:2]
        ]
        for e in range(3)
    ]
    assert all(len(set(epoch)) == 6 for epoch in epochs)  # the last whole step ends it
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert order_of_step([1, 2], 5, count=5, seed=0) == [1, 2, 1, 2, 1]


@pytest.mark.parametrize("bad", [{3}, {0, 5}, {0, 1, 2, 3, 4}], ids=len)
def test_the_next_row_stands_in_for_one_that_cannot_be_read_and_the_others_keep_their_place(bad):
    for step in range(1, 10):
        order = order_of_step(range(7), step, count=2, seed=3)
        assert sorted(order) == list(range(7))
        found = open_in_order(order, lambda row: None if row in bad else row, count=2)
        assert len(set(found)) == 2
        assert not bad & set(found)
        kept = [(a, b) for a, b in zip(order, found, strict=False) if a not in bad]
        assert all(a == b for a, b in kept)
    assert open_in_order([1, 2, 3], lambda row: row if row == 2 else None, count=2) == [2, 2]
    with pytest.raises(RunError, match=r"none of 3 rows can be read; bad_rows\.jsonl"):
        open_in_order([1, 2, 3], lambda row: None, count=2)


@pytest.mark.slow
def test_clips_that_cannot_be_read_are_named_and_a_run_goes_on_bit_for_bit_without_them(
    make_run, planted, tmp_path
):
    for row in (1, 5):  # one that is trained on, one that is held out
        cut_short(tmp_path / f"data/{row}_2.png")
    constant = {"warmup_steps": 0, "kind": "constant"}
    for name, lengths in {"whole": (4,), "cut": (3, 4)}.items():
        for steps in lengths:
            schedule = Schedule(num_steps=steps, **constant)
            run = make_run(name, body=LARGE, held_out=2, schedule=schedule)
            train_allocator(run, parts=planted, log=quiet)
    rows = {name: rows_without_clocks(tmp_path / name) for name in ("whole", "cut")}
    assert rows["cut"] == rows["whole"]
    files = [(tmp_path / name / "rollouts.jsonl").read_text() for name in ("whole", "cut")]
    assert files[0] == files[1]
    bad = read_rows(tmp_path / "whole/bad_rows.jsonl")
    assert {(each["row"], each["held_out"]) for each in bad} == {("r1", False), ("r5", True)}
    assert all("2.png" in each["reason"] for each in bad)
    assert rows["whole"][-1]["bad_rows"] == sum(not each["held_out"] for each in bad) >= 2
    assert all(row["groups"] == 2 for row in rows["whole"])  # each epoch has two steps of two
    assert {p["questions"] for p in read_rows(tmp_path / "whole/evaluations.jsonl")} == {1}


def test_a_clip_that_cannot_be_read_ends_the_run_where_it_was_asked_to(make_run, planted, tmp_path):
    cut_short(tmp_path / "data/3_0.png")
    run = make_run(prompts=6)
    run = dataclasses.replace(run, data=dataclasses.replace(run.data, on_bad="raise"))
    with pytest.raises(RunError, match=r"data: .*rows\.jsonl: row r3: .*3_0\.png"):
        train_allocator(run, parts=planted, log=quiet)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"reward": "nowhere.py:pay"}, ConfigError, "nowhere.py:pay: no such file"),
        ({"data": "nowhere.jsonl"}, MresError, "nowhere.jsonl: no such file"),
        ({"reward": "letters"}, BadRowError, "row r0: reward: no kind of question 'letters'"),
        ({"held_out": 6}, ConfigError, "held_out=6 leaves none"),
        ({"wire": "pairs", "unit": "frame"}, ConfigError, "network.unit=frame"),
        ({"top_p": 0.0}, ConfigError, "top_p=0.0"),
    ],
)
def test_what_cannot_be_trained_is_one_line(changes, error, message, make_run, planted):
    unit = changes.get("unit")
    run = make_run(**{key: value for key, value in changes.items() if key != "unit"})
    if unit:
        run = dataclasses.replace(run, network=dataclasses.replace(run.network, unit=unit))
    with pytest.raises(error, match=message):
        train_allocator(run, parts=planted, log=quiet)


@pytest.mark.slow
def test_another_network_in_the_same_directory_is_refused(make_run, planted, tmp_path):
    run = make_run(body=LARGE, schedule=Schedule(num_steps=1))
    train_allocator(run, parts=planted, log=quiet)
    other = dataclasses.replace(run, network=dataclasses.replace(run.network, hidden_size=32))
    with pytest.raises(ConfigError, match=r"network\.hidden_size: 16 -> 32"):
        train_allocator(other, parts=planted, log=quiet)


LEARNS = BackboneTraining()
SLOWER = BackboneTraining(optimizer=OptimizerConfig(learning_rate=2e-7))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (LEARNS, BackboneTraining(peft=LoRA()), r"backbone_training\.peft"),
        (LEARNS, BackboneTraining(train={"text": 1.0}), r"backbone_training\.train"),
        (None, LEARNS, r"models \(backbone learns: no -> yes\)"),
        (LEARNS, None, r"models \(backbone learns: yes -> no\)"),
        # these get as far as the parts, which have an answerer that cannot learn
        (LEARNS, BackboneTraining(every=3, advantage="capo"), "another answers"),
        (LEARNS, SLOWER, "another answers"),
        (LEARNS, BackboneTraining(remat="full", loss_chunk=None), "another answers"),
    ],
)
def test_a_run_goes_on_with_other_numbers_but_not_with_other_parts(
    before, after, message, make_run, planted, tmp_path
):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text(to_json(make_run(backbone_training=before)))
    with pytest.raises(ConfigError, match=message):
        train_allocator(make_run(backbone_training=after), parts=planted, log=quiet)


@pytest.mark.slow
@pytest.mark.parametrize("wire", ["stills", "pairs"])
def test_clips_of_one_frame_of_odd_lengths_and_of_mixed_sizes_are_trained_on(
    wire, make_run, planted, write_clips, tmp_path
):
    folder = tmp_path / "mixed"
    folder.mkdir()
    write_clips(folder, count=2, frames=3, sizes=((16, 32), (24, 16)))
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    rows.append(rows[0] | {"id": "alone", "frames": rows[0]["frames"][:1]})
    del rows[0]["frames"]
    rows[0]["images"] = ["0_0.png", "1_0.png"]  # pictures of two sizes
    path = folder / "mixed.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = make_run(wire, body="return float(len(answer.views))", data=path, wire=wire, prompts=3)
    train_allocator(run, parts=planted, log=quiet)
    found = {row["id"]: row for row in read_rows(tmp_path / wire / "rollouts.jsonl")}
    units = {name: len(row["tokens"]) for name, row in found.items()}
    assert units == {"r0": 2, "r1": 3 if wire == "stills" else 2, "alone": 1}
    assert {name: len(row["scales"]) for name, row in found.items()} == {
        "r0": 2,
        "r1": 3,
        "alone": 1,
    }

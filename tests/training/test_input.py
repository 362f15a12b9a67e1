"""The packs of a run depend on its seed and the place alone, and hold every example once."""

import collections
import contextlib
import dataclasses
import json
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from mres_jax.config import Documents, Rows, Schedule
from mres_jax.data.documents import write_set
from mres_jax.data.rows import open_rows, prepare_rows
from mres_jax.data.types import ExampleSize, Kind, Rung
from mres_jax.errors import BadRowError, ConfigError, RunError
from mres_jax.models.nativeres_llava import processor
from mres_jax.models.nativeres_llava.presets import mres_tiny
from mres_jax.resolution.policies import parse_policy
from mres_jax.resolution.uniform import Native
from mres_jax.testing.buckets import bucket
from mres_jax.testing.runs import tiny_run
from mres_jax.training.input.documents import DocumentExamples, document_tokenizer
from mres_jax.training.input.epochs import Epoch, Fed, plan_epoch
from mres_jax.training.input.feed import Feed, Position
from mres_jax.training.input.rows import RowExamples
from mres_jax.training.input.sources import fetch_rows, open_data
from mres_jax.training.setup import resolve_schedule

LADDER = (
    Rung(max_patches=1_024, max_tokens=512, max_views=16, max_examples=16),
    Rung(max_patches=4_096, max_tokens=1_536, max_views=16, max_examples=16),
)
NATIVE = {parse_policy("native"): 1.0}
TOKENIZER = document_tokenizer()
SPEC = processor.make_spec(mres_tiny(), TOKENIZER.token_id)


def documents(examples: int = 24) -> DocumentExamples:
    data = Documents(examples=examples, kinds={"page": 1.0, "sign": 1.0}, area_bins={"B": 1.0})
    return DocumentExamples(data, policies=NATIVE, spec=SPEC, tokenizer=TOKENIZER, seed=0)


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    return write_set(tmp_path / "set", 3, 8, bins=[("B", "NM"), ("C", "AW")]).parent


def rows(folder: pathlib.Path, policies=None, **changes) -> RowExamples:
    data = Rows(path=str(folder / "rows.jsonl"), images=str(folder), **changes)
    opened = open_rows(data.path, images=data.images, spec=SPEC, tokenizer=TOKENIZER)
    policies = {parse_policy(text): w for text, w in (policies or {"native": 1.0}).items()}
    return RowExamples(data, opened, policies=policies, seed=0)


def plan(*sources, epoch: int = 0, fill: int = 0) -> Epoch:
    return plan_epoch(sources, LADDER, seed=5, epoch=epoch, spec=SPEC, fill=fill)


def digest(fed: Fed) -> tuple:
    return fed.members, [np.asarray(x).tobytes() for x in jax.tree.leaves(fed.pack)]


def take(feed: Feed, count: int) -> list[Fed]:
    return [fed for fed, _ in zip(feed, range(count), strict=False)]


@pytest.mark.parametrize("fill", [0, -1])
def test_an_epoch_has_every_example_of_every_source_once_in_an_order_of_its_own(folder, fill):
    sources = documents(), rows(folder)
    orders = []
    for epoch in (0, 1):
        planned = plan(*sources, epoch=epoch, fill=fill)
        members = [member for pack in planned.members for member in pack]
        sizes = [len(source.sizes(epoch)) for source in sources]
        assert sorted(members) == [(s, n) for s in (0, 1) for n in range(sizes[s])]
        orders.append(plan(rows(folder), epoch=epoch, fill=fill).members)
    assert orders[0] != orders[1]


def test_packs_hold_what_was_planned(folder):
    sources = documents(), rows(folder)
    planned = plan(*sources)
    for place, rung in enumerate(planned.rungs):
        pack = planned[place].pack
        assert len(pack.patches) == rung.max_patches
        sizes = [sources[s].sizes(0)[n] for s, n in planned.members[place]]
        patches, tokens, views = np.sum(sizes, axis=0)
        assert (pack.patch_segment_ids > 0).sum() == patches
        assert (pack.segment_ids > 0).sum() == tokens
        assert pack.patch_segment_ids.max() == views
        assert pack.segment_ids.max() == len(sizes)


def test_prepared_shards_give_the_packs_of_their_source(folder, tmp_path):
    """Every pack of two epochs, in two sources, under a mixture of policies with rows held out."""
    opened = open_rows(folder / "rows.jsonl", spec=SPEC, tokenizer=TOKENIZER)
    prepare_rows(opened, tmp_path / "shards", shard_bytes=100_000)
    run = tiny_run(tmp_path, policies={"native": 1.0, "budget:16": 2.0}, ladder=LADDER)
    feeds = []
    for path in (folder / "rows.jsonl", tmp_path / "shards"):
        data = (Rows(path=str(path), weight=1.5, held_out=2), Rows(path=str(path)))
        changed = dataclasses.replace(run, data=data, aux_loss_weight=0.0)
        feeds.append(open_data(changed, SPEC, TOKENIZER))
    for epoch in (0, 1):
        ours, theirs = (plan(epoch) for plan in feeds)
        assert len(ours) == len(theirs) > 2
        for place in range(len(ours)):
            assert digest(ours[place]) == digest(theirs[place])
            assert not ours[place].bad


@pytest.mark.slow
def test_prepared_rows_in_a_bucket_are_fetched_before_workers_read_them(
    folder, tmp_path, monkeypatch
):
    """Workers have no bucket here, so they can only read what stands on the disk."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    opened = open_rows(folder / "rows.jsonl", spec=SPEC, tokenizer=TOKENIZER)
    prepare_rows(opened, tmp_path / "shards", shard_bytes=100_000)
    run, lines = tiny_run(tmp_path, ladder=LADDER), []
    with bucket() as store:
        store.upload_folder(tmp_path / "shards", "gs://b/shards")
        plans = [
            open_data(
                dataclasses.replace(run, data=(Rows(path=path),), aux_loss_weight=0.0),
                SPEC,
                TOKENIZER,
                log=lines.append,
            )
            for path in (str(tmp_path / "shards"), "gs://b/shards")
        ]
        fetch_rows(plans[1](0))
    assert sum("now in" in line for line in lines) > 1
    with Feed(plans[1], num_workers=1) as feed:
        ours = take(feed, len(plans[0](0)))
    theirs = [plans[0](0)[place] for place in range(len(ours))]
    assert [digest(fed) for fed in ours] == [digest(fed) for fed in theirs]
    assert not any(fed.bad for fed in ours)


def test_a_row_comes_as_often_as_its_weight_says_and_policies_by_theirs(folder):
    source = rows(folder, {"native": 1.0, "budget:8": 3.0}, weight=2.5)
    count = len(source.rows)
    places, policies = source._drawn(0)
    times = collections.Counter(places.tolist())
    assert len(places) == 2 * count + round(count / 2)
    assert set(times.values()) == {2, 3}
    assert 0.6 < policies.mean() < 0.9  # 3 of 4, of about 250 draws
    again = {tuple(np.sort(source._drawn(epoch)[0])) for epoch in (0, 1)}
    assert len(again) == 2  # the half that comes a third time is another one
    for number in (0, len(places) - 1):
        assert tuple(source.example(0, number).size) == tuple(source.sizes(0)[number])


@pytest.mark.parametrize("weight", [1e-3, 0.3, 1.001])
def test_no_data_set_is_left_out_of_an_epoch(folder, weight):
    source = rows(folder, weight=weight)
    assert len(source.sizes(0)) == max(1, round(weight * len(source.taken)))
    assert source.example(0, 0).patches.size


def test_a_policy_of_weight_0_changes_nothing(folder):
    """Neither by the rows that it refuses nor by what is drawn."""

    class Refusing(Native):
        def __call__(self, sizes, question, spec):
            raise ConfigError("no row suits")

    plain = rows(folder, {"native": 1.0, "budget:16": 2.0}, weight=1.5)
    policies = dict(zip((Refusing(), *plain.policies), (0.0, 1.0, 2.0), strict=True))
    beside = RowExamples(plain.data, plain.rows, policies=policies, seed=0)
    assert len(plain.taken)
    for epoch in (0, 1):
        np.testing.assert_array_equal(plain.sizes(epoch), beside.sizes(epoch))


def test_packs_are_the_same_from_any_position_and_with_any_number_of_workers():
    def plan_one(number: int) -> Epoch:
        return plan(documents(16), epoch=number)

    per_epoch = len(plan_one(0))
    assert per_epoch > 2
    with Feed(plan_one) as feed:
        straight = take(feed, per_epoch + 3)
    assert {fed.epoch for fed in straight} == {0, 1}
    for start, num_workers in ((1, 0), (2, 2)):
        first = straight[start]
        with Feed(
            plan_one, position=Position(first.epoch, first.place), num_workers=num_workers
        ) as feed:
            seen = take(feed, len(straight) - start)
            assert feed.position > Position(seen[-1].epoch, seen[-1].place)
        assert [digest(fed) for fed in seen] == [digest(fed) for fed in straight[start:]]
    assert not multiprocessing.active_children()


def test_a_row_found_bad_late_leaves_padding_and_is_named(folder):
    source = rows(folder)
    planned = plan(source)
    source.sizes(0)  # the index stands; then a picture is damaged
    name = source.rows.row(0).images[0]
    (folder / name).write_bytes((folder / name).read_bytes()[:200])
    hurt = {i for i in range(len(source.rows)) if name in source.rows.row(i).images}
    fed = [planned[place] for place in range(len(planned))]
    bad = [line for one in fed for line in one.bad]
    assert len(bad) == len(hurt)
    assert all("rows.jsonl" in who and name in why for who, why in bad)
    for one, rung in zip(fed, planned.rungs, strict=True):
        assert len(one.pack.patches) == rung.max_patches
        assert one.pack.segment_ids.max() == len(one.members) - len(one.bad)


def test_a_pack_of_bad_rows_alone_is_padding(folder):
    source = rows(folder)
    planned = plan(source)
    for file in (folder / "images").iterdir():
        file.write_bytes(b"")
    fed, whole = planned[0], plan(documents())[0]
    assert len(fed.bad) == len(fed.members)
    assert not fed.pack.loss_mask.any()
    assert not fed.pack.segment_ids.any()
    shapes = jax.tree.map(lambda x: (x.dtype, x.ndim), (fed.pack, whole.pack))
    assert shapes[0] == shapes[1]


def test_a_run_that_wants_no_bad_rows_ends_at_one(folder):
    planned = plan(rows(folder, on_bad="raise"))
    for file in (folder / "images").iterdir():
        file.write_bytes(b"")
    with Feed(lambda number: planned) as feed, pytest.raises(RunError, match=r"rows\.jsonl: row "):
        next(feed)


def test_an_example_too_large_for_any_rung_is_named(folder):
    source = rows(folder)
    small = [Rung(max_patches=64, max_tokens=512, max_views=4, max_examples=4)]
    with pytest.raises(
        ConfigError, match=r"^run: row \d+ of rows\.jsonl needs \d+ patches, but max_patches=64"
    ):
        plan_epoch([source], small, seed=0, epoch=0, spec=SPEC)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stuck(Epoch):
    """A picture on a disk that does not answer."""

    def __getitem__(self, index: int) -> Fed:
        threading.Event().wait(20.0)
        raise BadRowError("0", "late")


def test_a_pack_that_does_not_come_ends_the_run_with_its_place():
    planned = plan(documents())
    stuck = Stuck(**{f.name: getattr(planned, f.name) for f in dataclasses.fields(planned)})
    feed = Feed(lambda number: stuck, timeout=0.3)
    with pytest.raises(RunError, match=r"pack 0 of epoch 0 did not come within 0\.3 s"):
        next(feed)


def test_a_worker_that_is_killed_ends_the_run_with_one_line():
    feed = Feed(lambda number: plan(documents(64), epoch=number), num_workers=1, timeout=120.0)
    next(feed)
    (worker,) = multiprocessing.active_children()
    assert worker.pid
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(RunError, match=r"exit code -9.*num_workers"):
        take(feed, 1_000)
    feed.close()


PARENT = """
import dataclasses, multiprocessing, time
from mres_jax.config import Documents
from mres_jax.models.nativeres_llava import processor
from mres_jax.models.nativeres_llava.presets import mres_tiny
from mres_jax.resolution.policies import parse_policy
from mres_jax.data.types import ExampleSize, Rung
from mres_jax.training.input.documents import DocumentExamples, document_tokenizer
from mres_jax.training.input.epochs import Epoch, plan_epoch
from mres_jax.training.input.feed import Feed

class Stuck(Epoch):
    def __getitem__(self, index):
        if index:
            time.sleep(60)
        return super().__getitem__(index)

def main():
    tokenizer = document_tokenizer()
    spec = processor.make_spec(mres_tiny(), tokenizer.token_id)
    source = DocumentExamples(Documents(examples=24, kinds={"page": 1.0}),
        policies={parse_policy("native"): 1.0}, spec=spec, tokenizer=tokenizer, seed=0)
    rung = Rung(max_patches=4096, max_tokens=2048, max_views=8, max_examples=8)
    epoch = plan_epoch([source], [rung], seed=0, epoch=0, spec=spec)
    assert len(epoch) > 1
    fields = {f.name: getattr(epoch, f.name) for f in dataclasses.fields(epoch)}
    feed = Feed(lambda n: Stuck(**fields), num_workers=1)
    next(feed)
    print(multiprocessing.active_children()[0].pid, flush=True)
    time.sleep(60)

if __name__ == "__main__":
    main()
"""


def test_workers_end_when_their_parent_is_killed_even_in_the_middle_of_a_picture(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
    finally:
        parent.kill()
        parent.wait()
        assert parent.stdout is not None
        parent.stdout.close()
    for _ in range(100):
        with contextlib.suppress(FileNotFoundError):
            state = pathlib.Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z":
                time.sleep(0.1)
                continue
        return
    pytest.fail(f"worker {worker} is alive 10 s after its parent")


def six_packs(number: int) -> Epoch:
    return Epoch(
        sources=(),
        number=number,
        kinds=(Kind(LADDER[0]),) * 6,
        members=((),) * 6,
        sizes=(ExampleSize(0, 0, 0),) * 6,
        pairs=(0,) * 6,
        label_names=(),
        spec=SPEC,
    )


@pytest.mark.parametrize(
    ("schedule", "steps", "warmup"),
    [
        (Schedule(epochs=2, warmup_fraction=0.25), 12, 3),
        (Schedule(num_steps=5, epochs=1), 5, 0),
        (Schedule(num_steps=100, warmup_steps=7), 100, 7),
    ],
)
def test_epochs_become_steps(schedule, steps, warmup):
    resolved = resolve_schedule(schedule, six_packs)
    assert (resolved.num_steps, resolved.warmup_steps) == (steps, warmup)


def test_a_schedule_longer_than_the_data_is_refused():
    with pytest.raises(ConfigError, match=r"num_steps=13, but epochs=2 of the data have 12 steps"):
        resolve_schedule(Schedule(num_steps=13, epochs=2), six_packs)


def test_rows_of_steps_that_will_be_taken_again_are_dropped(tmp_path):
    from mres_jax.training.metrics import drop_rows_after

    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(json.dumps({"step": s}) + "\n" for s in (1, 2, 3)) + '{"step": 4, "lo')
    drop_rows_after(file, 2)
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [1, 2]

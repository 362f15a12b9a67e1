"""What is planned of a pack tells the shapes of its arrays, so processes agree before they read."""

import itertools
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from mres_jax.config import Rows
from mres_jax.data.balance import balanced_order
from mres_jax.data.rows import open_rows
from mres_jax.data.types import Kind, Rung
from mres_jax.models.registry import FAMILIES
from mres_jax.resolution.policies import parse_policy
from mres_jax.testing import tiny_config
from mres_jax.training.input.documents import document_tokenizer
from mres_jax.training.input.epochs import Epoch, Fed, plan_epoch
from mres_jax.training.input.feed import Feed, Steps
from mres_jax.training.input.rows import RowExamples
from mres_jax.training.meshes import Reading, places

TOKENIZER = document_tokenizer()
LADDER = tuple(
    Rung(max_patches=64, max_tokens=128, max_views=4, max_examples=count) for count in (1, 2)
)
POLICIES = {parse_policy("budget:16"): 1.0}
FRAMES = 4


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    """Six clips, six pictures and two rows of text."""
    draw = np.random.default_rng(0)
    rows, asked = [], {"question": "what is red", "answer": "red"}
    for number in range(6):
        names = [f"{number}.{frame}.png" for frame in range(FRAMES)]
        for name in names:
            Image.fromarray(draw.integers(0, 256, (32, 32, 3), np.uint8)).save(tmp_path / name)
        rows.append({"id": f"clip {number}", "frames": names, "fps": 4.0, **asked})
        rows.append({"id": f"picture {number}", "image": names[0], **asked})
    rows += [{"id": f"text {number}", **asked} for number in range(2)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    return tmp_path


def plan(folder: pathlib.Path, *, family: str = "qwen2_vl", epoch: int = 0, balance: int = 0):
    spec = FAMILIES[family].make_spec(tiny_config(family, TOKENIZER), TOKENIZER.token_id)
    data = Rows(path=str(folder / "rows.json"), images=str(folder), fps=4.0)
    opened = open_rows(data.path, images=data.images, spec=spec, tokenizer=TOKENIZER, fps=data.fps)
    source = RowExamples(data, opened, policies=POLICIES, seed=0)
    return plan_epoch([source], LADDER, seed=5, epoch=epoch, spec=spec, balance=balance)


def shapes(fed: Fed) -> str:
    return str(jax.tree.map(lambda x: (np.shape(x), x.dtype), fed.pack))


def assert_blanks_are_alike(epoch: Epoch) -> None:
    """To what is read, and all of one kind to each other."""
    found: dict[Kind, set[str]] = {}
    for place, kind in enumerate(epoch.kinds):
        read, blank = epoch[place], epoch.blank(place)
        assert shapes(read) == shapes(blank)
        assert not blank.pack.loss_mask.any()
        assert read.kind == blank.kind == kind
        found.setdefault(kind, set()).add(shapes(read))
    assert all(len(some) == 1 for some in found.values())


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_a_blank_has_the_shapes_of_the_pack_that_another_process_reads(folder, family):
    epoch = plan(folder, family=family)
    assert {kind.has_clip for kind in epoch.kinds} == {True, False}
    assert_blanks_are_alike(epoch)


def test_a_pack_whose_clips_turn_out_bad_keeps_the_shapes_that_were_planned(folder):
    epoch = plan(folder)
    for file in folder.glob("*.1.png"):  # of the clips alone
        file.write_bytes(b"")
    assert_blanks_are_alike(epoch)
    moving = [epoch[place] for place, kind in enumerate(epoch.kinds) if kind.has_clip]
    assert sum(len(fed.bad) for fed in moving) == 6
    assert all(fed.pack.still.all() for fed in moving)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_processes_share_a_step_out_alike_whatever_mix_of_clips_it_has(folder, ranks):
    """Each holds blanks in place of what the others read, and learns it from no word of theirs."""
    epoch = plan(folder)
    processes = [Reading(ranks, frozenset({rank}), frozenset({rank})) for rank in range(ranks)]
    some = [epoch.kinds.index(kind) for kind in dict.fromkeys(epoch.kinds)]
    held = {place: (epoch[place], epoch.blank(place)) for place in some}
    assert len(some) >= 3
    for step in itertools.product(some, repeat=4):
        planned = places([epoch.kinds[place] for place in step], ranks)
        for process in processes:
            read = process.is_read([epoch.kinds[place] for place in step])
            feds = [held[place][not here] for place, here in zip(step, read, strict=True)]
            assert places([fed.kind for fed in feds], ranks) == planned
            for group in {group for group, _ in planned}:  # one program computes a group
                members = zip(feds, planned, strict=True)
                assert len({shapes(fed) for fed, (at, _) in members if at == group}) == 1


def test_what_is_read_is_what_is_computed_here(folder):
    """Over two epochs, whose packs are no whole number of steps."""
    epochs = [plan(folder, epoch=number) for number in range(3)]
    size, ranks = 4, 2
    assert len(epochs[0]) % size
    for rank in range(ranks):
        process = Reading(ranks, frozenset({rank}), frozenset({rank}))
        with Feed(epochs.__getitem__, steps=Steps(size, process.is_read)) as feed:
            for _ in range(2 * len(epochs[0]) // size):
                step = [next(feed) for _ in range(size)]
                here = process.is_read([fed.kind for fed in step])
                assert [bool(fed.pack.loss_mask.any()) for fed in step] == here


def test_a_fingerprint_tells_data_that_are_not_the_same(folder, tmp_path):
    """A copy has that of its source; one without a picture, or with a larger one, has not."""
    copies = [tmp_path / name for name in ("same", "lost", "larger", "moved")]
    for copy in copies:
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(*[c.name for c in copies]))
    (copies[1] / "3.0.png").unlink()
    Image.new("RGB", (64, 32)).save(copies[2] / "3.0.png")
    rows = json.loads((folder / "rows.json").read_text())
    (copies[3] / "rows.json").write_text(json.dumps([*rows[1:], rows[0]]))
    own, same, *others = (plan(each).fingerprint() for each in (folder, *copies))
    assert own == same
    assert len({own, *others}) == 4


def test_packs_with_clips_stand_together_where_packs_are_balanced(folder):
    kinds = plan(folder, balance=64).kinds
    assert list(kinds) == sorted(kinds)
    mixed = [Kind(LADDER[i % 2], i % 3 == 0) for i in range(8)]
    assert [mixed[i] for i in balanced_order(mixed, [0] * 8, 8)] == sorted(mixed)

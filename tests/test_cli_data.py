"""`mres data`: what is wrong with a data set and what it costs, on files made on the spot."""

import json
import os
import pathlib
import tarfile

import numpy as np
import pytest

from mres_jax.cli import main
from mres_jax.cli.data import POLICIES
from mres_jax.data.documents import write_set
from mres_jax.data.packing import plan_packs
from mres_jax.data.packing_report import packing_report
from mres_jax.data.rows import open_rows, report_policy
from mres_jax.data.types import Rung
from mres_jax.models.registry import load_processor, resolve
from mres_jax.resolution.policies import parse_policy
from mres_jax.testing.buckets import bucket


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> pathlib.Path:
    """Rows of a dozen generated documents."""
    return write_set(tmp_path_factory.mktemp("set"), 0, 12)


@pytest.fixture
def dirty(source) -> pathlib.Path:
    """The same pictures in LLaVA's form, with three bad rows and a strange one."""
    content = [json.loads(line) for line in source.read_text().splitlines()]
    rows = [
        {
            "id": row["id"],
            "image": row["images"][0],
            "conversations": [
                {"from": "human", "value": f"<image>\n{row['question']}"},
                {"from": "gpt", "value": row["answer"]},
            ],
        }
        for row in content
    ]
    rows[1]["image"], rows[2]["image"] = "gone.jpg", "../rows.jsonl"
    rows[3]["conversations"][1]["value"] = " "
    rows[4]["conversations"][0]["value"] = "What?"
    path = source.with_name("dirty.json")
    path.write_text(json.dumps(rows))
    return path


def test_a_clean_set_is_checked_in_one_line(source, capsys):
    assert main(["data", "check", str(source), "-p", "native", "-p", "budget:64"]) == 0
    count = len(source.read_text().splitlines())
    out, err = capsys.readouterr()
    assert out == f"rows.jsonl: {count} rows, {count} usable, 0 of them text only, 0 bad\n"
    assert "rows/s" in err


def test_what_comes_from_a_bucket_is_told_with_its_bytes_on_stderr(
    dirty, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(["data", "prepare", str(dirty), str(tmp_path / "set")]) == 0
    (shard,) = (tmp_path / "set").glob("rows-*")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        (tmp_path / "0.json").write_text('{"question": "What?", "answer": "x"}')
        tar.add(tmp_path / "0.json", "0.json")
    with bucket() as store:
        store.upload_folder(tmp_path / "set", "gs://b/set")
        store.pipe("gs://b/x.tar", (tmp_path / "x.tar").read_bytes())
        capsys.readouterr()
        assert main(["data", "check", "gs://b/set"]) == 0
        out, err = capsys.readouterr()
        told = f"mres: rows gs://b/set: files to fetch: 1, {shard.stat().st_size / 1e6:,.1f} MB"
        assert err.splitlines().count(told) == 1
        assert "gs://" not in out
        assert main(["data", "check", "gs://b/set"]) == 0
        assert "to fetch" not in capsys.readouterr().err  # it is here
        assert main(["data", "check", "gs://b/x.tar"]) == 0
        assert "mres: rows gs://b/x.tar: files to read there: 1, 0.0 MB" in capsys.readouterr().err


def test_what_is_wrong_is_a_table_with_names_and_reasons(dirty, capsys):
    assert main(["data", "check", str(dirty)]) == 1
    header, *lines, last = capsys.readouterr().out.splitlines()
    ids = [row["id"] for row in json.loads(dirty.read_text())]
    assert header.split() == ["kind", "rows", "first", "why"]
    assert [line.split("  ")[0] for line in lines] == ["bad", "bad", "bad", "noted"]
    for i, words in [
        (0, f"no answer  .* {ids[3]}  turn 1 (assistant) is empty"),
        (1, f"unsafe path  .* {ids[2]}  ../rows.jsonl has .. in it"),
        (2, f"missing picture  .* {ids[1]}  picture gone.jpg: no such file or directory"),
        (3, f"picture put first  .* {ids[4]}  -"),
    ]:
        for word in words.split(" .* "):
            assert " ".join(word.split()) in " ".join(lines[i].split())
    assert last.endswith("3 bad")


def test_findings_are_one_json_object(dirty, capsys):
    assert main(["data", "check", str(dirty), "--json"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["num_bad"] == 3
    assert [finding["kind"] for finding in content["bad"]] == [
        "no answer",
        "unsafe path",
        "missing picture",
    ]
    assert content["bad"][2]["first"][0]["reason"].startswith("picture gone.jpg")
    assert content["notes"][0]["count"] == 1
    assert content["refused"] == {}


def test_a_repaired_set_is_read_anew(dirty, capsys):
    main(["data", "check", str(dirty)])
    capsys.readouterr()
    picture = next((dirty.parent / "images").glob("*.jpg"))
    (dirty.parent / "gone.jpg").write_bytes(picture.read_bytes())
    assert main(["data", "check", str(dirty), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["num_bad"] == 2
    (dirty.parent / "gone.jpg").unlink()


def test_preparing_says_what_each_policy_costs(source, capsys):
    words = ["data", "prepare", str(source), "-p", "native", "-p", "budget:16", "--json"]
    assert main(words) == 0
    content = json.loads(capsys.readouterr().out)
    processor = load_processor(resolve())
    rows = open_rows(source, spec=processor.spec, tokenizer=processor.tokenizer, index="refuse")
    assert list(content["policies"]) == ["native", "budget:16"]
    for text, report in content["policies"].items():
        sizes = rows.measure(parse_policy(text)).sizes
        assert report["rows"] == len(rows) == content["num_rows"]
        assert list(report["mean"].values()) == pytest.approx(sizes.mean(0).tolist())
        assert list(report["largest"].values()) == sizes.max(0).tolist()
        packs = sum(rung["packs"] for rung in report["packing"]["packs_per_rung"])
        assert packs == report["packing"]["packs"]
    assert content["policies"]["budget:16"]["visual_tokens"] <= 16
    widths = content["quantiles"]["picture width"]
    assert (
        widths["median"]
        <= widths["90 %"]
        <= widths["largest"]
        == max(size.width for i in range(len(rows)) for size in rows.sizes(i))
    )
    assert main(words[:-1]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("budget:16 ") for line in lines)
    assert any(line.startswith("text tokens ") for line in lines)


def test_shards_are_prepared_checked_and_not_written_over(dirty, tmp_path, capsys):
    target = str(tmp_path / "set")
    assert main(["data", "prepare", str(dirty), target, "--shard-mb", "1"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert next(line for line in lines if line.startswith("megapixels")).endswith("all")
    assert [line.split()[0] for line in lines[-5:]] == ["policy", *POLICIES]
    card = json.loads((tmp_path / "set" / "card.json").read_text())
    assert card["left_out"] == {"no answer": 1, "unsafe path": 1, "missing picture": 1}
    assert f"{card['num_rows']:,} rows in {len(card['shards'])} shard" in err
    assert main(["data", "check", target]) == 0
    count = card["num_rows"]
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"set: {count} rows, {count} usable")
    assert main(["data", "prepare", str(dirty), target]) == 2
    assert "is prepared already" in capsys.readouterr().err


def test_a_bad_row_stops_a_preparation_that_is_told_so(dirty, tmp_path, capsys):
    words = ["data", "prepare", str(dirty), str(tmp_path / "set"), "--on-bad", "raise"]
    assert main(words) == 2
    assert f"picture gone.jpg: no such file or directory ({dirty})." in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_the_histogram_counts_every_picture_once(source, capsys):
    assert main(["data", "prepare", str(source), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    counts = np.array(content["sizes"]["counts"])
    edges = content["sizes"]["megapixels"], content["sizes"]["width_over_height"]
    assert counts.shape == tuple(len(each) + 1 for each in edges)
    processor = load_processor(resolve())
    rows = open_rows(source, spec=processor.spec, tokenizer=processor.tokenizer)
    sizes = [size for i in range(len(rows)) for size in rows.sizes(i)]
    small = sum(size.area <= 50_000 for size in sizes)
    wide = sum(size.width > 2 * size.height for size in sizes)
    assert (counts.sum(), counts[0].sum(), counts[:, -1].sum()) == (len(sizes), small, wide)


def test_the_packing_that_is_reported_is_that_of_all_rows(source):
    processor = load_processor(resolve())
    rows = open_rows(source, spec=processor.spec, tokenizer=processor.tokenizer)
    native = parse_policy("native")
    report = report_policy(rows, native, rungs=(64,), seed=3)
    assert report.packing is not None
    assert report.packing.num_examples == len(rows)
    rungs = report.packing.packs_per_rung
    assert max(rung.max_patches for rung in rungs) >= report.largest.num_patches > 64
    sizes = rows.measure(native).sizes
    one = Rung(max_patches=10**6, max_tokens=10**6, max_views=10**4, max_examples=10**4)
    whole = packing_report(sizes, plan_packs(sizes, [one], lookahead=10**4))
    buffers = sum(rung.max_patches * count for rung, count in rungs.items())
    assert report.packing.patch_efficiency * buffers == pytest.approx(
        whole.patch_efficiency * 10**6
    )


def test_rows_without_pictures_are_prepared_too(tmp_path, capsys):
    path = tmp_path / "text.jsonl"
    path.write_text('{"question": "What?", "answer": "7"}\n')
    assert main(["data", "prepare", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[-3:] == ["-", "-", "-"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "gone.json"], "rows gone.json: no such file."),
        (["chekc", "x"], "data: argument ACTION: invalid choice: 'chekc'"),
        (["check", "x", "--image", "y"], "Did you mean '--images'?"),
        (["check", "rows.json", "-p", "natvie"], "did you mean native?"),
        (["check", "rows.json"], "begins with 'id,image', but rows are a JSON list"),
        (["prepare", "list.json"], "the JSON list breaks at row 0, behind byte 1: expecting"),
        (["prepare", "bad.jsonl"], "none of 1 can be used: 1 no answer (first: #0): turn 1"),
        (["check", "tfds:x"], "rows tfds:x: write tfds:NAME@DIRECTORY"),
        (["check", "gs://b/x.tar"], "rows gs://b/x.tar: cannot be reached (ImportError: "),
        (["check", "cut.tar"], "cut.tar: no whole tar file (no block of zeros ends it; readable"),
        (["prepare", "cut.tar", "x"], "byte 1,024, member 0.json). Copy it anew, or append 1,024"),
        (
            ["check", "rows.json", "--field", "a=b"],
            "rows rows.json: names of fields (--field a=b) are told for parquet, tar and TFDS "
            "alone. Write a for b in these rows, and leave it out.",
        ),
        (["check", "nothing.parquet", "--field", "a=b"], "rows nothing.parquet: no such file."),
        (["check", "tfds:x@y", "--images", "z"], "(--images z) is for rows in JSON; these hold"),
        (["check", "rows.json", "--field", "a"], "--field a: write OURS=THEIRS"),
        (["prepare", "list.json", "x", "--shard-mb", "0"], "--shard-mb 0 must be at least 1"),
        (["prepare", "list.json", "list.json"], "list.json is a file; name a directory"),
        (["check", "rows.json", "--images", "gone"], "the picture folder gone is no directory."),
    ],
)
def test_what_cannot_be_read_is_one_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.json").write_text("id,image")
    (tmp_path / "list.json").write_text("[{'id': 1}]")
    (tmp_path / "bad.jsonl").write_text('{"question": "What?"}')
    (tmp_path / "0.json").write_text('{"question": "What?", "answer": "x"}')
    with tarfile.open("cut.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        tar.add("0.json")
    os.truncate("cut.tar", 1024)  # all of its row, and nothing behind it
    assert main(["data", *words]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert message in err.splitlines()[-1]

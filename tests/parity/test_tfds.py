"""Data sets of TensorFlow Datasets: what they hold is what rows say, and TensorFlow stays away."""

import io
import itertools
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mres_jax.data.rows import open_rows, prepare_rows
from mres_jax.data.rows.sources.tfds import TfdsRows
from mres_jax.errors import MresError
from mres_jax.evaluation.rc_bench.folders import write_set
from mres_jax.evaluation.rc_bench.generated import CUTS, generate_items
from mres_jax.evaluation.rc_bench.tfds_builder import write_tfds
from mres_jax.resolution.policies import parse_policy
from mres_jax.testing import buckets, tiny_spec, tiny_tokenizer

tfds = pytest.importorskip("tensorflow_datasets")
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
TOKENIZER = tiny_tokenizer()
SPEC = tiny_spec(TOKENIZER)
NATIVE = parse_policy("native")


def png(number):
    pixels = np.random.default_rng(number).integers(0, 256, (16 + number, 24, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Twelve conversations with one or two pictures, and three questions."""
    text, image = tfds.features.Text, tfds.features.Image(shape=(None, None, 3))

    class TinyTalks(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = tmp_path_factory.mktemp("package")

        def _info(self):
            turn = {"from": text(), "value": text()}
            features = {
                "id": np.int64,
                "images": tfds.features.Sequence(image),
                "conversations": tfds.features.Sequence(turn),
                "kind": tfds.features.ClassLabel(names=["red", "blue"]),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(12), "test": self._generate_examples(3)}

        def _generate_examples(self, count):
            for i in range(count):
                marks = "<image>" * (1 + i % 2)
                yield (
                    i,
                    {
                        "id": i,
                        "images": [io.BytesIO(png(i + k)) for k in range(1 + i % 2)],
                        "conversations": [
                            {"from": "human", "value": f"{marks}\nwhat {i}"},
                            {"from": "gpt", "value": "" if i == 5 else "ü"},
                        ],
                        "kind": i % 2,
                    },
                )

    folder = tmp_path_factory.mktemp("data")
    TinyTalks(data_dir=str(folder), file_format="array_record").download_and_prepare()
    return folder


def opened(place, **kwargs):
    return open_rows(place, spec=SPEC, tokenizer=TOKENIZER, **kwargs)


def test_rows_are_what_was_prepared(prepared):
    rows = opened(f"tfds:tiny_talks@{prepared}")
    assert [(f.kind, f.count) for f in rows.index.summary.bad] == [("no answer", 1)]
    assert sorted(int(rows.row(i).id) for i in range(len(rows))) == [*range(5), *range(6, 12)]
    for i in range(len(rows)):
        number = int(rows.row(i).id)
        assert rows.row(i).turns[1] == ("assistant", "ü")
        for k, pixels in enumerate(rows.images(i)):
            with Image.open(io.BytesIO(png(number + k))) as image:
                np.testing.assert_array_equal(pixels, np.asarray(image))
    assert [rows.example(i, NATIVE).size for i in range(11)] == list(
        map(tuple, rows.measure(NATIVE).sizes)
    )
    assert pickle.loads(pickle.dumps(rows)).row(3) == rows.row(3)
    assert len(opened(f"tfds:tiny_talks@{prepared}", index="refuse")) == 11
    assert len(opened(f"tfds:tiny_talks/1.0.0@{prepared},split=test")) == 3


def test_it_is_a_source_for_grain_and_can_be_prepared(prepared, tmp_path):
    import grain

    source = TfdsRows(f"tiny_talks@{prepared}")
    read = [row["id"] for row in grain.MapDataset.source(source).shuffle(seed=0)]
    assert sorted(read) == list(range(12))
    rows = opened(f"tfds:tiny_talks@{prepared}")
    made = opened(prepare_rows(rows, tmp_path / "set").directory)
    np.testing.assert_array_equal(made.measure(NATIVE).sizes, rows.measure(NATIVE).sizes)
    assert [made.row(i) for i in range(11)] == [rows.row(i) for i in range(11)]


def test_fields_have_our_names_by_a_mapping(prepared):
    source = TfdsRows(f"tiny_talks@{prepared}", fields={"answer": "kind"})
    row = source[0]
    assert row["answer"] == ("blue" if row["id"] % 2 else "red")
    assert "kind" not in row
    with pytest.raises(MresError, match=r"no feature colour; it has .*conversations"):
        TfdsRows(f"tiny_talks@{prepared}", fields={"answer": "colour"})


def test_what_is_not_there_is_one_line(prepared, tmp_path):
    with pytest.raises(MresError, match="no split 'dev'; it has train, test"):
        TfdsRows(f"tiny_talks@{prepared},split=dev")
    with pytest.raises(MresError, match=r"no prepared data set tiny_tales in"):
        TfdsRows(f"tiny_tales@{prepared}")


def test_a_generated_set_for_rc_bench_is_a_data_set_and_stays_what_it_was(tmp_path):
    made = {"name": "My set", "origin": "generated", "seed": 3, "type": "rc"}
    items = itertools.islice(generate_items(3, 1), 9)
    rc_set = write_set(tmp_path / "My set", items, cuts=CUTS, made=made)
    write_tfds(rc_set.folder, tmp_path / "data")
    source = TfdsRows(f"mres_rc_set/my_set@{tmp_path / 'data'}")
    rows = {row["id"]: row for row in source}
    assert len(source) == len(rows) == 9
    for item, picture in (rc_set[i] for i in range(9)):
        row = rows[item.id]
        assert (row["image"], tuple(row["answers"])) == (picture, item.answers)
        assert (row["scorer"], row["area_bin"], row["ratio_bin"]) == (item.metric, *item.cell)
    with pytest.raises(MresError, match="is there already"):
        write_tfds(rc_set.folder, tmp_path / "data")
    assert len(opened(f"tfds:mres_rc_set@{tmp_path / 'data'}")) == 9


def test_tensorflow_is_not_imported(prepared):
    code = (
        "import sys\nfrom mres_jax.data.rows.sources.tfds import TfdsRows\n"
        f"print(TfdsRows('tiny_talks@{prepared}')[0]['id'])\n"
        "assert 'tensorflow' not in sys.modules and 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def bucket(prepared, monkeypatch, tmp_path):
    """The data set in a bucket, and caches that are empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with buckets.bucket() as bucket:
        bucket.upload_folder(prepared, "gs://b/data")
        yield bucket


def copied(tmp_path):
    return sorted(p.name for p in tmp_path.glob("cache/mres/tfds/*/tiny_talks-*"))


def test_a_data_set_in_a_bucket_is_that_of_the_disk_and_its_split_comes_once(
    prepared, bucket, tmp_path
):
    log = []
    there = opened("tfds:tiny_talks@gs://b/data", log=log.append)
    here = opened(f"tfds:tiny_talks@{prepared}")
    assert [there.row(i) for i in range(11)] == [here.row(i) for i in range(11)]
    np.testing.assert_array_equal(there.measure(NATIVE).sizes, here.measure(NATIVE).sizes)
    assert there.images(3)[0].tobytes() == here.images(3)[0].tobytes()
    assert copied(tmp_path) == ["tiny_talks-train.array_record-00000-of-00001"]
    assert sum("array_record" in line for line in log) == 1
    shard = "gs://b/data/tiny_talks/1.0.0/" + copied(tmp_path)[0]
    bucket.pipe(shard, bytes(bucket.size(shard)))
    again = TfdsRows("tiny_talks/1.0.0@gs://b/data")
    assert pickle.loads(pickle.dumps(again))[2] == again[2]
    TfdsRows("tiny_talks@gs://b/data,split=test")
    assert len(copied(tmp_path)) == 2


def test_a_data_set_that_is_prepared_anew_is_fetched_anew(prepared, bucket, tmp_path):
    rows = TfdsRows("tiny_talks@gs://b/data")
    before = rows.facts(), rows.digest()
    bucket.rm("gs://b/data", recursive=True)
    bucket.upload_folder(prepared, "gs://b/data")
    rows = TfdsRows("tiny_talks@gs://b/data")
    assert rows.facts() != before[0]
    assert rows.digest() != before[1]
    assert len(copied(tmp_path)) == 2


def test_what_is_not_in_the_bucket_is_one_line(bucket):
    place = "gs://b/data/tiny_talks"
    with pytest.raises(MresError, match="no prepared data set tiny_tales in gs://b/data"):
        TfdsRows("tiny_tales@gs://b/data")
    with pytest.raises(MresError, match="no split 'dev'; it has train, test"):
        TfdsRows("tiny_talks@gs://b/data,split=dev")
    bucket.rm(f"{place}/1.0.0/tiny_talks-test.array_record-00000-of-00001")
    with pytest.raises(MresError, match=r"shard tiny_talks-test\S+ is missing in gs://b/.*1 of 1"):
        TfdsRows("tiny_talks@gs://b/data,split=test")
    bucket.copy(f"{place}/1.0.0/dataset_info.json", f"{place}/2.0.0/dataset_info.json")
    with pytest.raises(MresError, match=r"name one of tiny_talks/1.0.0, tiny_talks/2.0.0"):
        TfdsRows("tiny_talks@gs://b/data")
    features = json.loads(bucket.cat(f"{place}/1.0.0/dataset_info.json"))
    info = json.dumps(features | {"fileFormat": "tfrecord"}).encode()
    bucket.pipe(f"{place}/1.0.0/dataset_info.json", info)
    with pytest.raises(MresError, match="Prepare it with file_format='array_record'"):
        TfdsRows("tiny_talks/1.0.0@gs://b/data")

"""Released folders made into the tables that lmms-eval reads by its task files."""

import importlib
import json

import pytest
from PIL import Image

from mres_jax.errors import MresError
from mres_jax.harness import write_task_files
from mres_jax.harness.videos import local_video

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
pytestmark = pytest.mark.parity


@pytest.fixture
def installed(tmp_path, monkeypatch):
    package = tmp_path / "site/lmms_eval"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(package.parent))
    importlib.invalidate_caches()


@pytest.fixture
def screens(tmp_path):
    """ScreenSpot-Pro as released, rows of two files."""
    root = tmp_path / "ScreenSpot-Pro"
    for name in ("annotations", "images/a"):
        (root / name).mkdir(parents=True)
    for i in range(2):
        Image.new("RGB", (60, 40)).save(root / f"images/a/{i}.png")
        row = {
            "id": f"a_{i}",
            "img_filename": f"a/{i}.png",
            "bbox": [1, 2, 30.5, 4],
            "img_size": [60, 40],
            "instruction": "open",
            "ui_type": "icon",
        }
        (root / f"annotations/{i}.json").write_text(json.dumps([row]))
    return root


def test_screens_become_a_table_with_pictures_by_their_paths(installed, screens, tmp_path):
    (name,) = write_task_files(tmp_path / "tasks", {"screenspot_pro": str(screens)})
    table = parquet.read_table(tmp_path / f"tasks/{name}.parquet")
    rows = table.to_pylist()
    assert [row["image"]["path"] for row in rows] == [
        str(screens / f"images/a/{i}.png") for i in range(2)
    ]
    assert all(row["image"]["bytes"] is None for row in rows)
    assert rows[0]["bbox"] == [1.0, 2.0, 30.5, 4.0]
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    value = {"_type": "Value", "dtype": "float64"}
    assert features["bbox"] == {"_type": "List", "feature": value}
    assert features["instruction"] == {"_type": "Value", "dtype": "string"}


def test_a_screen_whose_picture_is_missing_is_refused(installed, screens, tmp_path):
    (screens / "images/a/1.png").unlink()
    with pytest.raises(MresError, match=r"screenspot_pro: .*1.png: no such picture"):
        write_task_files(tmp_path / "tasks", {"screenspot_pro": str(screens)})


VIDEOS = {  # task -> where its videos lie, and a row about one
    "videomme": ("data", {"videoID": "{}", "question_id": "001", "options": ["A. x", "B. y"]}),
    "temporal_grounding_charades": (
        "Charades_v1_480",
        {"video": "{}.mp4", "caption": "a person runs", "timestamp": [1.5, 3.0]},
    ),
}


@pytest.fixture(params=VIDEOS)
def clips(request, tmp_path):
    """A task about videos: two files and a folder of frames, rows about them in two shards."""
    folder, row = VIDEOS[request.param]
    root = tmp_path / "copy"
    (root / folder / "frames").mkdir(parents=True)
    for name in ("a.mp4", "b.mkv"):
        (root / folder / name).write_bytes(b"video")
    rows = [
        {key: text.format(name) if isinstance(text, str) else text for key, text in row.items()}
        for name in ("b", "a", "frames")
    ]
    for number, some in enumerate((rows[:1], rows[1:])):
        file = root / f"test-{number:05}-of-00002.parquet"
        parquet.write_table(pyarrow.Table.from_pylist(some), file)
    return request.param, root, root / folder, rows


def test_rows_about_videos_name_those_of_the_copy(installed, clips, tmp_path):
    task, root, folder, rows = clips
    for out in (tmp_path / "tasks", root / "tasks", root / "tasks"):  # twice into the copy itself
        (name,) = write_task_files(out, {task: str(root)})
        lines = (out / f"{name}.yaml").read_text().splitlines()
        assert "doc_to_visual: !function mres_jax.harness.videos.local_video" in lines
        (options,) = (line for line in lines if line.startswith("dataset_kwargs: "))
        (file,) = json.loads(options.split(": ", 1)[1])["data_files"].values()
        written = parquet.read_table(file).to_pylist()
        paths = [str(folder / name) for name in ("b.mkv", "a.mp4", "frames")]
        assert [local_video(row) for row in written] == [[path] for path in paths]
        theirs = [{key: row[key] for key in rows[0]} for row in written]
        assert theirs == rows


def test_a_video_that_is_not_there_or_is_sound_to_the_harness_is_named(installed, clips, tmp_path):
    task, root, folder, _ = clips
    (folder / "b.mkv").rename(folder / "b.webm")
    (folder / "a.mp4").unlink()
    with pytest.raises(MresError) as caught:
        write_task_files(tmp_path / "tasks", {task: str(root)})
    assert f"lmms-eval task {task}: {root}: 2 of 3 rows without video: row 0: " in str(caught.value)
    assert "b.webm for sound; make it an mp4. row 1: video a is not in " in str(caught.value)
    assert not list((tmp_path / "tasks").glob("*.yaml"))


def test_a_table_that_names_no_videos_is_refused(installed, tmp_path):
    file = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"question": ["what?"]}), file)
    with pytest.raises(MresError, match=r"a\.parquet: no column videoID; it has question"):
        write_task_files(tmp_path / "tasks", {"videomme": str(file)})

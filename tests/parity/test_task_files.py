"""Released folders made into the tables that lmms-eval reads by its task files."""

import importlib
import json

import pytest
from PIL import Image

from mres_jax.errors import MresError
from mres_jax.harness import write_task_files

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

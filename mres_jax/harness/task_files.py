"""Tasks of lmms-eval, pointed at local copies: files for `lmms-eval eval --include_path DIR`.

Each is a task of lmms-eval under another name, `TASK_local`, with the same prompt and the same
scorer; only where its rows come from is changed. Nothing is fetched.
"""

import importlib
import importlib.util
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from mres_jax.errors import MresError, suggest
from mres_jax.files import check_directory, check_shards, write_together
from mres_jax.harness.videos import Videos, rows_with_videos

SUFFIX = "_local"
_RESULTS = "mres_jax.harness.judging"


class LocalTask(NamedTuple):
    """How a task of lmms-eval is pointed at a local copy.

    Attributes:
      file: its YAML, below lmms_eval/tasks.
      split: that its rows stand under.
      changes: other fields of it that change, as YAML.
      convert: the released form of a copy -> rows, where parquet is not it.
      videos: where they lie; None: it asks about pictures, which are in the table.
    """

    file: str
    split: str
    changes: Mapping[str, str] = {}
    convert: Callable[[pathlib.Path], Iterator[dict[str, Any]]] | None = None
    videos: Videos | None = None


def _screens(root: pathlib.Path) -> Iterator[dict[str, Any]]:
    """ScreenSpot-Pro as released: `annotations/*.json` and `images/`."""
    for file in sorted((root / "annotations").glob("*.json")):
        for row in _json(file):
            yield row | {"image": _picture(root / "images" / row["img_filename"])}


def _vstar(root: pathlib.Path) -> Iterator[dict[str, Any]]:
    """V*Bench as released: `test_questions.jsonl` and folders of pictures."""
    lines = (root / "test_questions.jsonl").read_text("utf-8").split("\n")
    for row in map(json.loads, filter(str.strip, lines)):
        yield row | {"image": _picture(root / row["image"])}


_NO_JUDGE = {"process_results": f"!function {_RESULTS}.hrbench_process_results"}
_OUR_VIDEO = {"doc_to_visual": "!function mres_jax.harness.videos.local_video"}
TASKS: Mapping[str, LocalTask] = {
    "hrbench4k": LocalTask("hrbench/hrbench4k.yaml", "hrbench_4k", _NO_JUDGE),
    "hrbench8k": LocalTask("hrbench/hrbench8k.yaml", "hrbench_8k", _NO_JUDGE),
    "vstar_bench": LocalTask("vstar_bench/vstar_bench.yaml", "test", convert=_vstar),
    "screenspot_pro": LocalTask("screenspot_pro/screenspot_pro.yaml", "test", convert=_screens),
    "textvqa_val": LocalTask("textvqa/textvqa_val.yaml", "validation"),
    "chartqa": LocalTask("chartqa/chartqa.yaml", "test"),
    "docvqa_val": LocalTask("docvqa/docvqa_val.yaml", "validation"),
    "ocrbench": LocalTask("ocrbench/ocrbench.yaml", "test"),
    "videomme": LocalTask(
        "videomme/videomme.yaml",
        "test",
        _OUR_VIDEO,
        videos=Videos("videoID", ("data", "videos", "")),
    ),
    "temporal_grounding_charades": LocalTask(
        "charades_sta/charades.yaml",
        "test",
        _OUR_VIDEO,
        videos=Videos("video", ("Charades_v1_480", "Charades_v1", "videos", "")),
    ),
}


def write_task_files(out: str | os.PathLike[str], copies: Mapping[str, str]) -> list[str]:
    """Writes a task file for each local copy, and returns what the tasks are called.

    Args:
      out: directory for `--include_path`.
      copies: name of a task of lmms-eval -> its local copy: a parquet file or a folder of them, as
        hubs keep it, for Video-MME and Charades-STA with the videos in folders beside it; for
        HR-Bench also the `.tsv`, for ScreenSpot-Pro and V*Bench the released folder.

    Raises:
      MresError: a task that is not known, a copy that is not there, no lmms-eval.
    """
    root, tasks = check_directory(os.fspath(out)), _tasks_folder()
    root.mkdir(parents=True, exist_ok=True)
    files: dict[str, bytes] = {}
    for name, copy in copies.items():
        if name not in TASKS:
            raise MresError(
                f"lmms-eval task {name!r}: not known here{suggest(name, TASKS)}; have "
                f"{', '.join(TASKS)}."
            )
        task, path = TASKS[name], pathlib.Path(copy).absolute()
        builder, options = _source(name, task, path, root.absolute())
        files[f"{name}{SUFFIX}.yaml"] = _yaml(name, task, tasks, builder, options)
    write_together(root, files)
    return [f"{name}{SUFFIX}" for name in copies]


def _source(
    name: str, task: LocalTask, path: pathlib.Path, out: pathlib.Path
) -> tuple[str, dict[str, Any]]:
    """The builder of `datasets` that reads a copy, and its options."""
    if not path.exists():
        raise MresError(f"lmms-eval task {name}: {path}: no such file or folder.")
    if path.suffix == ".tsv" and "hrbench" in name:
        return "csv", {"data_files": {task.split: str(path)}, "delimiter": "\t"}
    made = out / f"{name}{SUFFIX}.parquet"  # of an earlier call, it may lie in the copy
    shards = sorted(set(path.rglob("*.parquet")) - {made}) if path.is_dir() else []
    check_shards(shards, what=f"lmms-eval task {name}: {path}")
    if task.videos is None and path.suffix == ".parquet":
        return "parquet", {"data_files": {task.split: str(path)}}
    if task.videos is None and shards:
        return "parquet", {"data_files": {task.split: str(path / "**/*.parquet")}}
    try:
        _write_parquet(made, list(_rows(name, task, path, shards)), name)
    except (OSError, KeyError, TypeError, ValueError) as error:
        reason = error if isinstance(error, MresError) else f"{type(error).__name__}: {error}"
        raise MresError(f"lmms-eval task {name}: {path}: {reason}") from None
    return "parquet", {"data_files": {task.split: str(made)}}


def _rows(
    name: str, task: LocalTask, path: pathlib.Path, shards: list[pathlib.Path]
) -> Iterator[dict[str, Any]]:
    """The rows of a copy that lmms-eval cannot read as it is."""
    if task.videos is not None and (shards or path.suffix == ".parquet"):
        root = path if path.is_dir() else path.parent
        return rows_with_videos(shards or [path], root, task.videos, what=name)
    if task.convert is None or not path.is_dir():
        raise MresError("is no parquet file and no folder of them.")
    return task.convert(path)


def _yaml(
    name: str, task: LocalTask, tasks: pathlib.Path, builder: str, options: dict[str, Any]
) -> bytes:
    lines = {
        "include": json.dumps(str(tasks / task.file)),
        "task": name + SUFFIX,
        "dataset_path": builder,
        "dataset_name": "null",
        "dataset_kwargs": json.dumps(options),  # JSON is YAML
        "test_split": task.split,
        **task.changes,
    }
    return "".join(f"{key}: {value}\n" for key, value in lines.items()).encode()


def _tasks_folder() -> pathlib.Path:
    found = importlib.util.find_spec("lmms_eval")
    if found is None or not found.submodule_search_locations:
        raise MresError("lmms-eval is not installed here: pip install 'mres-jax[lmms]'.")
    return pathlib.Path(next(iter(found.submodule_search_locations))) / "tasks"


def _write_parquet(file: pathlib.Path, rows: list[dict[str, Any]], name: str) -> None:
    """Rows with a column `image` that `datasets` opens as a picture, by its path."""
    if not rows:
        raise MresError("it has no rows.")
    if importlib.util.find_spec("pyarrow") is None:
        raise MresError(f"lmms-eval task {name}: needs pyarrow (pip install 'mres-jax[parquet]').")
    arrow: Any = importlib.import_module("pyarrow")
    columns: dict[str, None] = {}
    for row in rows:
        columns |= dict.fromkeys(row)
    picture = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    table = arrow.table(
        {
            column: arrow.array(
                [row.get(column) for row in rows], picture if column == "image" else None
            )
            for column in columns
        }
    )
    features = {"image": {"_type": "Image"}}
    told = {"huggingface": json.dumps({"info": {"features": _features(table, features)}})}
    importlib.import_module("pyarrow.parquet").write_table(
        table.replace_schema_metadata(told), file
    )


def _features(table: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    """Columns as `datasets` names their types."""
    return {field.name: known.get(field.name) or _feature(field.type) for field in table.schema}


def _feature(kind: Any) -> dict[str, Any]:
    types: Any = importlib.import_module("pyarrow.types")
    if types.is_list(kind):
        return {"_type": "List", "feature": _feature(kind.value_type)}
    return {"_type": "Value", "dtype": "float64" if types.is_floating(kind) else str(kind)}


def _picture(path: pathlib.Path) -> dict[str, Any]:
    if not path.is_file():
        raise MresError(f"{path}: no such picture.")
    return {"bytes": None, "path": str(path)}


def _json(file: pathlib.Path) -> Any:
    return json.loads(file.read_text("utf-8"))

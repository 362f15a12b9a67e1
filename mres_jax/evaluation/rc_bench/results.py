"""Scored predictions on disk: `scores.jsonl`, a line per item, and `summary.json`."""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mres_jax.data.rows.types import Fault, shown
from mres_jax.errors import MresError
from mres_jax.evaluation.rc_bench.cuts import CELLS, Cuts
from mres_jax.evaluation.rc_bench.folders import CARD, RCSet
from mres_jax.evaluation.rc_bench.items import METRICS
from mres_jax.evaluation.rc_bench.scores import Scored
from mres_jax.evaluation.rc_bench.variation import Means, Variation, measure
from mres_jax.files import write_together

SCORES, SUMMARY = "scores.jsonl", "summary.json"
SAMPLES = 2000  # of the bootstrap


@dataclasses.dataclass(frozen=True)
class Result:
    """Scores of one model on one set.

    Attributes:
      name: of the folder.
      ids: of the items.
      cells: of the items.
      scores: `float64 [n]`, 0 to 1.
      summary: contents of `summary.json`.
    """

    name: str
    ids: tuple[str, ...]
    cells: tuple[tuple[str, str], ...]
    scores: np.ndarray
    summary: Mapping[str, Any]

    @property
    def cuts(self) -> Cuts:
        """Between the cells."""
        cuts = self.summary["set"]["cuts"]
        return Cuts(areas=tuple(cuts["areas"]), ratios=tuple(cuts["ratios"]))


def summarize(
    scored: Sequence[Scored],
    rc_set: RCSet,
    predictions: str | os.PathLike,
    *,
    threshold: float,
    samples: int = SAMPLES,
    seed: int = 0,
) -> tuple[Means, dict[str, Any]]:
    """Returns the means of scores, and the contents of `summary.json`.

    Args:
      scored: every item of the set.
      rc_set: the set.
      predictions: their file.
      threshold: of ANLS.
      samples, seed: of the bootstrap.
    """
    scores = np.array([each.score for each in scored])
    means = measure(scores, [each.item.cell for each in scored], samples=samples, seed=seed)
    card, path = rc_set.card, pathlib.Path(predictions)
    as_came = [each.score for each in scored if each.item.fit is None]
    summary = {
        "set": {
            **{name: card[name] for name in ("name", "origin", "num_items", "cuts")},
            "sha256": card["items_sha256"],
            "is_balanced": len(card["cells"]) == 35 and len(set(card["cells"].values())) == 1,
        },
        "predictions": {
            "file": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        },
        "anls_threshold": threshold,
        "bootstrap": {"samples": samples, "seed": seed},
        "accuracy": list(means.accuracy),
        "acv": means.acv._asdict(),
        "rcv": means.rcv._asdict(),
        "areas": {name: list(interval) for name, interval in means.areas.items()},
        "ratios": {name: list(interval) for name, interval in means.ratios.items()},
        "metrics": _by_metric(scored),
        "pictures as they came": _count(as_came),
    }
    return means, summary


def _by_metric(scored: Sequence[Scored]) -> dict[str, dict[str, float | int | None]]:
    groups = {m: [each.score for each in scored if each.item.metric == m] for m in METRICS}
    return {metric: _count(scores) for metric, scores in groups.items() if scores}


def _count(scores: Sequence[float]) -> dict[str, float | int | None]:
    return {"items": len(scores), "accuracy": float(np.mean(scores)) if scores else None}


def write_result(
    folder: str | os.PathLike, scored: Sequence[Scored], summary: Mapping[str, Any]
) -> list[pathlib.Path]:
    """Writes scores and their summary with what it is a summary of, both or neither."""
    lines = [json.dumps(_line(each), ensure_ascii=False) + "\n" for each in scored]
    scores = "".join(lines).encode()
    summary = {**summary, "scores_sha256": hashlib.sha256(scores).hexdigest()}
    content = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return write_together(folder, {SCORES: scores, SUMMARY: content.encode()})


def _line(scored: Scored) -> dict[str, Any]:
    item = scored.item
    fields = ("id", "type", "metric", "area_bin", "ratio_bin", "question", "answers")
    line = {name: getattr(item, name) for name in fields}
    return line | {"prediction": scored.prediction, "score": scored.score}


def _why_none(folder: pathlib.Path, error: OSError) -> str:
    """What is wrong with a folder of which a file cannot be read."""
    if not isinstance(error, FileNotFoundError) or not folder.is_dir():
        return (error.strerror or "cannot be read").lower()
    lacking = next(name for name in (SCORES, SUMMARY) if not (folder / name).is_file())
    return f"is a set and has no {lacking}" if (folder / CARD).is_file() else f"has no {lacking}"


def read_result(folder: str | os.PathLike) -> Result:
    """Reads what `write_result` wrote.

    Raises:
      MresError: no result there, a damaged summary, lines that are damaged, counted, or that are
        not those of the summary.
    """
    folder = pathlib.Path(folder)
    try:
        content = (folder / SCORES).read_bytes()
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        _check_summary(summary)
    except OSError as error:
        raise MresError(
            f"result {folder}: {_why_none(folder, error)}. Make one with mres rcbench score."
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise MresError(
            f"result {folder}: {SUMMARY} is damaged ({shown(reason)}). Score the predictions anew."
        ) from None
    rows, bad, count = [], [], summary["set"]["num_items"]
    for number, line in enumerate(line for line in content.split(b"\n") if line):
        try:
            rows.append(_row(line))
        except Fault as fault:
            bad.append(f"line {number + 1}: {fault.reason}")
    if bad or len(rows) != count or len({row[0] for row in rows}) != count:
        first = f" ({bad[0]})" if bad else ""
        raise MresError(
            f"result {folder}: {len(rows):,} good lines of {count:,} in {SCORES}, {len(bad):,} "
            f"damaged{first}. Score the predictions anew."
        )
    if summary.get("scores_sha256") != hashlib.sha256(content).hexdigest():
        raise MresError(
            f"result {folder}: {SCORES} is not what {SUMMARY} was written for. Score the "
            "predictions anew."
        )
    ids, cells, scores = zip(*rows, strict=True)
    return Result(folder.absolute().name, ids, cells, np.array(scores), summary)


def _check_summary(summary: Any) -> None:
    """Raises KeyError, TypeError or ValueError where what is read of it is not there."""
    about, means = summary["set"], summary["accuracy"]
    variations = {name: summary[name]["value"] for name in ("acv", "rcv")}
    is_sound = {
        **{name: isinstance(about[name], str) for name in ("name", "origin", "sha256")},
        "num_items": isinstance(about["num_items"], int) and about["num_items"] > 0,
        "accuracy": isinstance(means, list) and len(means) == 3 and all(map(_is_number, means)),
        **{name: value is None or _is_number(value) for name, value in variations.items()},
    }
    if wrong := [name for name, sound in is_sound.items() if not sound]:
        raise ValueError(f"{', '.join(wrong)} cannot be")
    Cuts(areas=tuple(about["cuts"]["areas"]), ratios=tuple(about["cuts"]["ratios"]))


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def _row(line: bytes) -> tuple[str, tuple[str, str], float]:
    try:
        content = json.loads(line)
        cell, score = (content["area_bin"], content["ratio_bin"]), content["score"]
        name = content["id"]
    except (KeyError, TypeError, ValueError) as error:
        raise Fault("not JSON", shown(error)) from None
    if (
        not _is_number(score)
        or not 0 <= score <= 1
        or cell not in CELLS
        or not isinstance(name, str)
    ):
        raise Fault("unknown form", f"score {shown(score)} in cell {shown(cell)}")
    return name, cell, float(score)


def say_variation(variation: Variation) -> str:
    """Returns a coefficient of variation for people, such as `14.2 [12.0, 16.9]`."""
    if variation.value is None:
        return "-"
    said = f"{variation.value:.1f}"
    if variation.interval is not None:
        said += f" [{variation.interval[0]:.1f}, {variation.interval[1]:.1f}]"
    return said

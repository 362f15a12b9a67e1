"""Benchmarks in their released form, and sets of `mres rcbench make`, as questions."""

import collections
import dataclasses
import functools
from collections.abc import Sequence

from mres_jax.config import Benchmark
from mres_jax.data.rows import QuestionRow
from mres_jax.data.spec import ProcessorSpec
from mres_jax.errors import MresError
from mres_jax.evaluation.arms.files import question_of
from mres_jax.evaluation.arms.questions import AskedQuestion
from mres_jax.evaluation.benchmarks import (
    hits_element,
    load_charades_sta,
    load_chartqa,
    load_docvqa,
    load_hr_bench,
    load_ocrbench,
    load_screenspot_pro,
    load_textvqa,
    load_videomme,
    load_vstar,
)
from mres_jax.evaluation.benchmarks.shares import read_rows
from mres_jax.evaluation.rc_bench import RCSet, open_set, score_item
from mres_jax.protocols import Answer, Item

_WHEN = (
    'When in the video does this happen: "{sentence}"? Answer with its start and its end in seconds'
    ", for example 12.5 - 30.0."
)
# `bare` of the prompts `screen` takes the command out of it again.
_WHERE = 'Where on this screen is the element for the command "{command}"? Answer with its point.'


def open_benchmark(task: Benchmark) -> list[AskedQuestion]:
    """Returns the questions of a local copy.

    Raises:
      MresError: it is not there, or broken; rows that cannot be asked, counted by kind.
    """
    if task.name == "rcbench":
        rc_set = open_set(task.path)
        return [_of_set(rc_set, number) for number in range(len(rc_set))]
    load, ask = _LOADERS[task.name]
    rows = _unique(task, load(task.path))
    return read_rows(task.name, task.path, rows, lambda where, row: ask(row))


def _unique(task: Benchmark, rows: Sequence[QuestionRow]) -> Sequence[QuestionRow]:
    ids = [row.id for row in rows]
    twice = [id_ for id_, count in collections.Counter(ids).items() if count > 1]
    if twice:
        raise MresError(
            f"{task.name} {task.path}: {len(twice):,} ids stand there twice (first: {twice[0]})."
        )
    return rows


def _turned(row: QuestionRow) -> AskedQuestion:
    """The cycles of one question stand or fall together."""
    return question_of(row, group=f"{row.tags[1]} {row.question}")


def _element(row: QuestionRow) -> AskedQuestion:
    asked = question_of(row, metric="element", grade=functools.partial(hits_element, row))
    return dataclasses.replace(asked, text=_WHERE.format(command=row.question))


def _grouped(row: QuestionRow) -> AskedQuestion:
    """Questions about one picture or one video, the last tag, stand or fall together."""
    return question_of(row, group=row.tags[-1])


def _moment(row: QuestionRow) -> AskedQuestion:
    asked = _grouped(row)
    return dataclasses.replace(asked, text=_WHEN.format(sentence=asked.text))


_LOADERS = {  # of rows, and how one is asked
    "hrbench4k": (load_hr_bench, _turned),
    "hrbench8k": (load_hr_bench, _turned),
    "vstar_bench": (load_vstar, question_of),
    "screenspot_pro": (load_screenspot_pro, _element),
    "textvqa_val": (load_textvqa, _grouped),
    "chartqa": (load_chartqa, _grouped),
    "docvqa_val": (load_docvqa, _grouped),
    "ocrbench": (load_ocrbench, _grouped),
    "videomme": (load_videomme, _grouped),
    "charades_sta": (load_charades_sta, _moment),
}


def _of_set(rc_set: RCSet, number: int) -> AskedQuestion:
    item = rc_set.items[number]

    def open_picture(spec: ProcessorSpec | None) -> list[Item]:
        return [rc_set.image(number)]

    def score(answer: Answer) -> float:
        return score_item(item, answer.text)

    return AskedQuestion(
        id=item.id,
        text=item.question,
        answers=item.answers,
        metric=item.metric,
        grade=score,
        open=open_picture,
        type=item.type,
        group=item.sha256[:16],
        sizes=(item.size,),
        cell=item.cell,
        made_of=item.sha256,
    )

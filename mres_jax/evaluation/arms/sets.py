"""Benchmarks in their released form, and sets of `mres rcbench make`, as questions."""

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
from mres_jax.evaluation.rc_bench import RCSet, open_set, score_item
from mres_jax.protocols import Answer, Item

_LOADERS = {  # of rows whose last tag is the picture or the video that they are about
    "textvqa_val": load_textvqa,
    "chartqa": load_chartqa,
    "docvqa_val": load_docvqa,
    "ocrbench": load_ocrbench,
    "videomme": load_videomme,
    "charades_sta": load_charades_sta,
}
_WHEN = (
    'When in the video does this happen: "{sentence}"? Answer with its start and its end in seconds'
    ", for example 12.5 - 30.0."
)
_WHERE = 'Where on this screen is the element for the command "{command}"? Answer with its point.'


def open_benchmark(task: Benchmark) -> list[AskedQuestion]:
    """Returns the questions of a local copy.

    Raises:
      MresError: it is not there, or broken.
    """
    if task.name == "rcbench":
        rc_set = open_set(task.path)
        return [_of_set(rc_set, number) for number in range(len(rc_set))]
    if task.name == "screenspot_pro":
        rows = load_screenspot_pro(task.path)
        return [_element(row) for row in _unique(rows, task.name)]
    if task.name == "vstar_bench":
        return [question_of(row) for row in _unique(load_vstar(task.path), task.name)]
    if task.name in _LOADERS:
        asked = [_grouped(row) for row in _unique(_LOADERS[task.name](task.path), task.name)]
        return [_moment(row) for row in asked] if task.name == "charades_sta" else asked
    rows = _unique(load_hr_bench(task.path), task.name)
    return [question_of(row, group=f"{row.tags[1]} {row.question}") for row in rows]


def _unique(rows: Sequence[QuestionRow], name: str) -> Sequence[QuestionRow]:
    ids = [row.id for row in rows]
    twice = sorted({id_ for id_ in ids if ids.count(id_) > 1}) if len(set(ids)) < len(ids) else []
    if twice:
        raise MresError(f"{name}: {len(twice):,} ids stand there twice (first: {twice[0]}).")
    return rows


def _element(row: QuestionRow) -> AskedQuestion:
    asked = question_of(row, metric="element", grade=functools.partial(hits_element, row))
    return dataclasses.replace(asked, text=_WHERE.format(command=row.question))


def _grouped(row: QuestionRow) -> AskedQuestion:
    """Questions about one picture or one video stand or fall together."""
    return question_of(row, group=row.tags[-1])


def _moment(asked: AskedQuestion) -> AskedQuestion:
    return dataclasses.replace(asked, text=_WHEN.format(sentence=asked.text))


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

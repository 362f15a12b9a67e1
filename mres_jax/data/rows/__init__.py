"""Data sets of rows: where they come from, their index, their shards, and questions about them."""

from mres_jax.data.rows.index import RowIndex as RowIndex
from mres_jax.data.rows.opening import open_rows as open_rows
from mres_jax.data.rows.prepare import prepare_rows as prepare_rows
from mres_jax.data.rows.question_row import QuestionRow as QuestionRow
from mres_jax.data.rows.questions import (
    Questioning as Questioning,
    read_questions as read_questions,
    scan_questions as scan_questions,
)
from mres_jax.data.rows.report import (
    PolicyReport as PolicyReport,
    report_policy as report_policy,
    size_histogram as size_histogram,
)
from mres_jax.data.rows.rowset import (
    Measured as Measured,
    RowSet as RowSet,
    ToViews as ToViews,
)
from mres_jax.data.rows.summary import Finding as Finding, Summary as Summary
from mres_jax.data.rows.tasks import Task as Task, read_task as read_task
from mres_jax.data.rows.types import (
    BAD_KINDS as BAD_KINDS,
    NOTE_KINDS as NOTE_KINDS,
    Row as Row,
)

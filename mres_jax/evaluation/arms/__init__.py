"""Evaluations: models x policies x budgets x seeds on any task, a line per answer, resumed exactly.

An arm is one model under one policy, asked one task with one seed.
"""

from mres_jax.evaluation.arms.contestants import Contestant as Contestant, Entrant as Entrant
from mres_jax.evaluation.arms.metrics import METRICS as METRICS
from mres_jax.evaluation.arms.results import ArmResult as ArmResult, read_run as read_run
from mres_jax.evaluation.arms.run import run_evaluation as run_evaluation

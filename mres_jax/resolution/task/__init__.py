"""One resolution per task, from how complex its pictures are and how much a model's doubt changes.

Reference:
  Luo et al., 2025, "Task-Aware Resolution Optimization for Visual Large Language Models",
  arXiv:2510.09822: the optimum follows from image complexity and from the variance of the model's
  uncertainty over resolutions, relative to a baseline. The exact formula and its constants are not
  public to us; those here are ours.
"""

from mres_jax.resolution.task.candidates import (
    Candidate as Candidate,
    candidate_of as candidate_of,
    default_candidates as default_candidates,
)
from mres_jax.resolution.task.choice import (
    Choice as Choice,
    choose_by_formula as choose_by_formula,
    choose_by_sweep as choose_by_sweep,
)
from mres_jax.resolution.task.formula import (
    COMBINES as COMBINES,
    Formula as Formula,
    calibrate as calibrate,
    constant_error as constant_error,
    leave_one_out as leave_one_out,
)
from mres_jax.resolution.task.measure import (
    MeasuredTask as MeasuredTask,
    NoEntropyError as NoEntropyError,
    measure_task as measure_task,
)
from mres_jax.resolution.task.per_image import select_per_image as select_per_image
from mres_jax.resolution.task.perturb import perturb as perturb
from mres_jax.resolution.task.router import PolicyRouter as PolicyRouter

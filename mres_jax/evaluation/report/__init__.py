"""Evaluations side by side: one page without links, and the numbers behind it."""

from mres_jax.evaluation.report.build import make_report as make_report

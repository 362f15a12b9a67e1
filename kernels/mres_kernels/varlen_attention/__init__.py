"""Attention over a packed sequence whose rows each see one interval of keys."""

from mres_kernels.varlen_attention._checks import ROW_MULTIPLE as ROW_MULTIPLE
from mres_kernels.varlen_attention.api import varlen_attention as varlen_attention
from mres_kernels.varlen_attention.plan import Plan as Plan, make_plan as make_plan

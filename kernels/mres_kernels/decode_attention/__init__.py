"""Attention of a few new tokens per sequence against a cache."""

from mres_kernels.decode_attention.api import decode_attention as decode_attention
from mres_kernels.decode_attention.cache import extend_cache as extend_cache

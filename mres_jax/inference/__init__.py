"""Asking a model: prompts in packs, a cache, tokens out, and what it cost."""

from mres_jax.inference.handle import VLM as VLM, load as load

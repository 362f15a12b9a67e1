"""LLaVA-1.5: CLIP at one size, two-layer projector, Llama.

Liu et al., 2023, arXiv:2310.03744.
"""

"""LLaVA-HR: a CLIP that sees a small picture, told by a ConvNeXt that sees a large one.

Luo et al., 2024, arXiv:2403.03003.
"""

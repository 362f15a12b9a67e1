"""LLaVA-NeXT: LLaVA-1.5 that reads a picture as a whole and in tiles.

Liu et al., 2024, https://llava-vl.github.io/blog/2024-01-30-llava-next.
"""

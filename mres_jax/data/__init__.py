"""The host side, numpy only: pictures and words in, packs of static length out.

One safe decoder, views rendered and cut into patch rows, prompts built from trusted and untrusted
text, positions, packing plans, and the generator of documents. Nothing here imports jax, so
worker processes start quickly and counts are integers before anything is compiled.
"""

"""SmolVLM2: SigLIP on numbered squares, pixel shuffle, one linear layer, SmolLM2 (Llama).

Marafioti et al., 2025, arXiv:2504.05299.
"""

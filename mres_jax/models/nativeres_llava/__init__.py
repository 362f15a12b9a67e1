"""NativeRes-LLaVA: Qwen2-VL tower or SigLIP2-NaFlex, two-layer projector, Qwen2, plain rotary.

Niu et al., 2025, arXiv:2506.12776.
"""

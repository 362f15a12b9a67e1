"""NativeRes-LLaVA: Qwen2-VL tower, two-layer projector, Qwen2 with plain rotary.

Niu et al., 2025, arXiv:2506.12776.
"""

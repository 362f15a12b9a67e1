"""Qwen2.5-VL: windowed tower with RMSNorm and gated MLPs, Qwen2.5 decoder. arXiv:2502.13923."""

"""Qwen3-VL (dense): interpolated positions, DeepStack, Qwen3 decoder. arXiv:2511.21631."""

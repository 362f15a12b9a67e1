"""Qwen2-VL: native-resolution tower, patch merger, Qwen2 decoder with M-RoPE. arXiv:2409.12191."""

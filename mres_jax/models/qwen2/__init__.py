"""Qwen2: the decoder of Qwen2-VL and NativeRes-LLaVA."""

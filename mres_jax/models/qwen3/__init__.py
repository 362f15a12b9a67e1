"""Qwen3: the decoder of Qwen3-VL; layers and caches are those of `models.qwen2`."""

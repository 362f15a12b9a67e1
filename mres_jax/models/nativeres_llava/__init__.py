"""NativeRes-LLaVA: the Qwen2-VL tower, a two-layer projector, Qwen2 with plain rotary. arXiv:2506.12776."""

"""Llama, and what was tuned from it, such as Vicuna: the decoder of LLaVA."""

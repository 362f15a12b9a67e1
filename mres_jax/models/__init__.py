"""Families of models, and their weights as files.

`<family>/{config,model,processor,convert}.py`, the same four names each time; `registry` is what
rooms above import. Field names follow Hugging Face's `config.json`. Tables of keys take weights
from safetensors into our parameters and back, without torch.
"""

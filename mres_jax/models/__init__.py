"""Families of models, and their weights as files.

`<family>/{config,model,processor,convert}.py`, the same four names each time; `registry` is what
rooms above import. Field names follow Hugging Face's `config.json`; weights go from safetensors into
our parameters and back by tables of keys, without torch.
"""

"""Training runs: packs in, checkpoints and metrics out; a run that was stopped goes on by itself.

Described by a `config.Run`. Meets `evaluation` nowhere: what both need stands in `inference`.
"""

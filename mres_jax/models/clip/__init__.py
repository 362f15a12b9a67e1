"""CLIP's picture encoder: the tower of LLaVA-1.5, LLaVA-NeXT and LLaVA-HR."""

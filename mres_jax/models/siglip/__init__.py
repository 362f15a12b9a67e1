"""SigLIP's picture encoder: the tower of SmolVLM, and SigLIP2-NaFlex for NativeRes-LLaVA."""

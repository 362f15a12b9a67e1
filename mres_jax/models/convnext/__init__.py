"""ConvNeXt: the high-resolution tower of LLaVA-HR."""

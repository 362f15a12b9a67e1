"""Rows of a key table for the layers that all families share."""

from mres_jax.models.key_table import Key


def linear_keys(hf: str, ours: str, *, tail: tuple[int, ...] = ()) -> tuple[Key, Key]:
    """Weight and bias of a linear layer, or of a convolution with `tail` behind its outputs."""
    return (
        Key(hf=f"{hf}.weight", ours=f"{ours}.kernel", transform="transpose", tail=tail),
        Key(hf=f"{hf}.bias", ours=f"{ours}.bias"),
    )


def norm_keys(hf: str, ours: str) -> tuple[Key, Key]:
    """Scale and bias of a layer norm."""
    return Key(hf=f"{hf}.weight", ours=f"{ours}.scale"), Key(hf=f"{hf}.bias", ours=f"{ours}.bias")

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


def encoder_layer_keys(layer: str, block: str) -> list[Key]:
    """Keys of the layers that CLIP and SigLIP have alike."""
    rows = []
    for name in ("q", "k", "v"):
        rows += linear_keys(f"{layer}.self_attn.{name}_proj", f"{block}.attn.{name}")
    rows += linear_keys(f"{layer}.self_attn.out_proj", f"{block}.attn.o")
    for number in "12":
        rows += norm_keys(f"{layer}.layer_norm{number}", f"{block}.norm{number}")
        rows += linear_keys(f"{layer}.mlp.fc{number}", f"{block}.mlp.fc{number}")
    return rows

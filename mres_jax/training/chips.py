"""What the makers say of their chips."""

import dataclasses
from collections.abc import Mapping

GB, GIB = 10**9, 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One chip, from its maker's data sheet.

    Attributes:
      kind: as people call it.
      memory_bytes: of its memory.
      flops: dense bfloat16 products a second.
      memory_bandwidth: bytes/s.
      link_bandwidth: bytes/s that it can send to its neighbours, all links together.
      devices: that jax sees in it.
      per_host: chips of a host, where a slice has several hosts.
      cores: that the cloud counts in the name of a slice.
      names: how jax's names of its devices begin; none where that is `kind`.
    """

    kind: str
    memory_bytes: int
    flops: float
    memory_bandwidth: float
    link_bandwidth: float
    devices: int = 1
    per_host: int = 4
    cores: int = 1
    names: tuple[str, ...] = ()


# Cloud TPU documentation, pages "TPU v4", "TPU v5e" and "TPU7x" (with v5p and v6e beside it). Links
# are given there for both directions together, here for one; of v4 it is the all-reduce bandwidth
# of a pod over its chips. NVIDIA data sheets of H100, H200 and B200 (SXM).
CHIPS: Mapping[str, Chip] = {
    "v4": Chip(
        kind="TPU v4",
        memory_bytes=32 * GIB,
        flops=275e12,
        memory_bandwidth=1200e9,
        link_bandwidth=268e9,
        cores=2,
    ),
    "v5e": Chip(
        kind="TPU v5e",
        memory_bytes=16 * GIB,
        flops=197e12,
        memory_bandwidth=819e9,
        link_bandwidth=200e9,
        names=("TPU v5 lite", "TPU v5e"),
    ),
    "v5p": Chip(
        kind="TPU v5p",
        memory_bytes=95 * GIB,
        flops=459e12,
        memory_bandwidth=2765e9,
        link_bandwidth=600e9,
        cores=2,
        names=("TPU v5", "TPU v5p"),
    ),
    "v6e": Chip(
        kind="TPU v6e",
        memory_bytes=32 * GIB,
        flops=918e12,
        memory_bandwidth=1638e9,
        link_bandwidth=400e9,
        names=("TPU v6 lite", "TPU v6e"),
    ),
    "tpu7x": Chip(
        kind="TPU7x",
        memory_bytes=192 * GIB,
        flops=2307e12,
        memory_bandwidth=7380e9,
        link_bandwidth=600e9,
        devices=2,
        cores=2,
    ),
    "h100": Chip(
        kind="NVIDIA H100",
        memory_bytes=80 * GIB,
        flops=989e12,
        memory_bandwidth=3350e9,
        link_bandwidth=450e9,
        per_host=8,
    ),
    "h200": Chip(
        kind="NVIDIA H200",
        memory_bytes=141 * GB,
        flops=989e12,
        memory_bandwidth=4800e9,
        link_bandwidth=450e9,
        per_host=8,
    ),
    "b200": Chip(
        kind="NVIDIA B200",
        memory_bytes=180 * GB,
        flops=2250e12,
        memory_bandwidth=8000e9,
        link_bandwidth=900e9,
        per_host=8,
    ),
}

# Dense bfloat16 products a second of devices that nothing is planned for, from their data sheets.
OTHERS: Mapping[str, float] = {
    "NVIDIA A100": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40S": 362e12,
}


def peak_flops(device_kind: str) -> float | None:
    """Returns the most FLOP/s of one device, or None where we do not know: of a CPU, say.

    Args:
      device_kind: as jax names it; the longest name that it begins with counts.

    Example:
      >>> peak_flops("NVIDIA H100 80GB HBM3") == CHIPS["h100"].flops
      True
      >>> peak_flops("TPU7x") == CHIPS["tpu7x"].flops / 2  # of two devices
      True
      >>> peak_flops("cpu")
    """
    known = dict(OTHERS)
    for chip in CHIPS.values():
        known |= dict.fromkeys(chip.names or (chip.kind,), chip.flops / chip.devices)
    fits = [name for name in known if device_kind.startswith(name)]
    fits = [name for name in fits if device_kind[len(name) :][:1] in ("", " ", "-")]
    return known[max(fits, key=len)] if fits else None

"""The device that code is made for."""

import math
from typing import Any, NamedTuple

import jax


class Target(NamedTuple):
    """A kind of device.

    Attributes:
      platform: `cpu`, `gpu`, `tpu`.
      kind: as jax names it, such as `TPU v6 lite`.
    """

    platform: str
    kind: str


# Compute capability by a part of the name, for devices that are not here.
NVIDIA = {"GH200": 9.0, "H100": 9.0, "H200": 9.0, "H800": 9.0, "A100": 8.0, "B200": 10.0}


def target() -> Target:
    """That of the mesh in use, as when compiling for a machine that is not there; else this one's.

    A mesh is in use inside `jax.set_mesh` and `jax.sharding.use_abstract_mesh`.
    """
    device = _device()
    return Target(device.platform, device.device_kind)


def _device() -> Any:
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is None:
        device = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
        device = jax.devices()[0] if device is None else device
        device = jax.devices(device)[0] if isinstance(device, str) else device
    return device


def decline_other_gpus(implementation: str, *, least: float, below: float = math.inf) -> None:
    """Declines a call that is not for an NVIDIA GPU of these compute capabilities.

    Raises:
      NotImplementedError: another GPU, or one whose capability is not known.
    """
    device = _device()
    names = (value for name, value in NVIDIA.items() if name in device.device_kind)
    known = getattr(device, "compute_capability", next(names, "not known"))
    try:
        fits = least <= float(known) < below
    except ValueError:  # not here and not in the table; or of another maker
        fits = False
    if not fits:
        wanted = f"from {least}" + ("" if below == math.inf else f" and below {below}")
        raise NotImplementedError(
            f"{implementation}: needs an NVIDIA GPU of compute capability {wanted}, this is "
            f"{device.device_kind} ({known})."
        )


def decline_elsewhere(platform: str, implementation: str) -> None:
    """Declines a call that is not for one device of a platform.

    Raises:
      NotImplementedError: another platform, or a mesh that XLA would have to split a kernel over.
    """
    here = target().platform
    if here != platform:
        raise NotImplementedError(f"{implementation}: needs a {platform}, this is a {here}.")
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.size > 1 and not mesh.are_all_axes_manual:
        raise NotImplementedError(
            f"{implementation}: XLA cannot split a kernel over the mesh {dict(mesh.shape)}; call "
            "it inside jax.shard_map over rows and heads, with check_vma=False."
        )

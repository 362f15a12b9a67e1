"""The device that code is made for."""

from typing import NamedTuple

import jax


class Target(NamedTuple):
    """A kind of device.

    Attributes:
      platform: `cpu`, `gpu`, `tpu`.
      kind: as jax names it, such as `TPU v6 lite`.
    """

    platform: str
    kind: str


def target() -> Target:
    """That of the mesh in use, as when compiling for a machine that is not there; else this one's.

    A mesh is in use inside `jax.set_mesh` and `jax.sharding.use_abstract_mesh`.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is None:
        device = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
        device = jax.devices()[0] if device is None else device
        device = jax.devices(device)[0] if isinstance(device, str) else device
    return Target(device.platform, device.device_kind)


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

"""How the devices of a run are laid out."""

import dataclasses

from mres_jax.config._checks import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices along each axis of the mesh; their product is how many the run takes.

    A mesh changes where a run computes, not what: `accumulation` stays the packs of a step.
    """

    data: int = 1  # copies of the parameters, each with packs of its own
    fsdp: int = 1  # shares of parameters and optimiser state, each with packs of its own
    tensor: int = 1  # shares of attention heads, feed-forward channels and the vocabulary
    sequence: int = 1  # shares of the rows of one pack

    def __post_init__(self):
        for name, size in self.sizes.items():
            require(size >= 1, "MeshConfig", f"{name}={size} must be at least 1.")

    @property
    def sizes(self) -> dict[str, int]:
        """Axis -> devices, in the order of the mesh."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @property
    def size(self) -> int:
        """Devices."""
        return self.data * self.fsdp * self.tensor * self.sequence

    @property
    def ranks(self) -> int:
        """Packs that are computed at a time."""
        return self.data * self.fsdp

    def __str__(self) -> str:
        return " ".join(f"{name}={size}" for name, size in self.sizes.items())

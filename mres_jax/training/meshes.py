"""A run over many devices: its mesh, where its state lies, and which rank computes which pack."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from mres_jax.config import MeshConfig, Run
from mres_jax.errors import ConfigError
from mres_jax.nn import PACK, PACKS, param_spec

Batch = TypeVar("Batch")
Part = TypeVar("Part")


def make_mesh(run: Run) -> Mesh | None:
    """Returns the mesh of a run over the devices that are here; None for one device.

    Raises:
      ConfigError: the mesh takes another number of devices, or does not divide the model's heads or
        the ladder's lengths; with the nearest that does.
    """
    config, count = run.mesh, len(jax.devices())
    check_model(run)
    if config.size == 1:
        return None
    if config.size != count:
        raise ConfigError(
            f"run: the mesh {config} takes {config.size} devices, here are {count}. "
            f"{nearest(config, count)}"
        )
    return mesh_of(config, jax.devices())


def mesh_of(config: MeshConfig, devices: Sequence[Any]) -> Mesh:
    """Returns the mesh over as many devices as it takes; neighbours share the inner axes."""
    types = (AxisType.Auto,) * len(config.sizes)
    sizes, names = tuple(config.sizes.values()), tuple(config.sizes)
    return jax.make_mesh(sizes, names, axis_types=types, devices=list(devices))


def nearest(config: MeshConfig, count: int) -> str:
    """What would do: other data and fsdp axes at the same shares of a pack, if any."""
    inner = config.tensor * config.sequence
    if count % inner:
        tensor = math.gcd(config.tensor, count)
        return f"Take mesh.tensor={tensor}, mesh.sequence=1, mesh.fsdp={count // tensor}."
    outer = count // inner
    fsdp = math.gcd(config.fsdp, outer)
    return f"Take mesh.data={outer // fsdp}, mesh.fsdp={fsdp}."


def check_model(run: Run) -> None:
    """Refuses a mesh that does not divide heads or rows.

    Raises:
      ConfigError: the sizes, and the nearest that would do.
    """
    mesh = run.mesh
    shares = mesh.tensor * mesh.sequence
    heads = _head_counts(run.model)
    for name, count in heads.items():
        if count % shares:
            best = math.gcd(*heads.values(), mesh.tensor)
            raise ConfigError(
                f"run: the mesh {mesh} shares heads out over tensor x sequence = {shares} devices, "
                f"but {name}={count}. Take mesh.tensor={best}, mesh.sequence=1."
            )
    for rung, name in itertools.product(run.ladder, ("max_patches", "max_tokens")):
        rows = getattr(rung, name)
        if rows % mesh.sequence:
            up = -(-rows // mesh.sequence) * mesh.sequence
            raise ConfigError(
                f"run: the mesh {mesh} shares rows out over sequence={mesh.sequence} devices, but "
                f"a rung has {name}={rows}. Take {up}."
            )


def _head_counts(model: Any) -> dict[str, int]:
    """Heads of the model by name, key/value heads among them."""
    vision = getattr(model.vision_config, "low", model.vision_config)
    counts = {}
    for part, config in (("text_config", model.text_config), ("vision_config", vision)):
        for name in ("num_attention_heads", "num_key_value_heads", "num_heads"):
            if isinstance(getattr(config, name, None), int):
                counts[f"{part}.{name}"] = getattr(config, name)
    return counts


def shardings(tree: Any, mesh: Mesh | AbstractMesh) -> Any:
    """Returns where the leaves of a state lie: parameters, gradients or optimiser state by name."""

    def place(path: Any, x: Any) -> NamedSharding:
        names = [str(entry.key) for entry in path if hasattr(entry, "key")]
        spec = param_spec(names, x.shape, mesh.shape) if names else PartitionSpec()
        return NamedSharding(mesh, spec)  # pyright: ignore[reportArgumentType]

    return jax.tree_util.tree_map_with_path(place, tree)


def spread(packs: Sequence[tuple[Batch, Part]], mesh: Mesh) -> list[tuple[Batch, Part]]:
    """Returns the packs of a step, one per rank at a time, on a leading axis over the ranks.

    Packs of one rung go together. What is left of a rung is filled up with packs without contents,
    which count nothing. Each comes with what it counts for.
    """
    ranks = mesh.shape["data"] * mesh.shape["fsdp"]
    by_shape: dict[Any, list[Any]] = {}
    for pair in packs:
        by_shape.setdefault(str(jax.tree.map(np.shape, pair[0])), []).append(pair)
    groups = []
    for pairs in by_shape.values():
        pairs += [_nothing(pairs[0])] * (-len(pairs) % ranks)
        groups += [pairs[at : at + ranks] for at in range(0, len(pairs), ranks)]
    where = pack_sharding(mesh)
    return [jax.device_put(jax.tree.map(lambda *x: np.stack(x), *group), where) for group in groups]


def pack_sharding(mesh: Mesh) -> NamedSharding:
    """Where packs with a leading axis lie."""
    return NamedSharding(mesh, PartitionSpec(PACKS))


def _nothing(pair: Any) -> Any:
    return jax.tree.map(np.zeros_like, pair)


def over_packs(loss: Callable[..., Any]) -> Callable[..., Any]:
    """Of a loss of one pack, that of packs on a leading axis: sums, each rank computing its own."""
    each = jax.vmap(loss, axis_name=PACK, spmd_axis_name=PACKS)

    def total(packs: Any, parts: Any) -> Any:
        return jax.tree.map(lambda x: x.sum(axis=0), each(packs, parts))

    return total

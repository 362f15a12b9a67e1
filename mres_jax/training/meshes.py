"""A run over many devices: its mesh, where its state lies, and which rank computes which pack."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding

from mres_jax.config import MeshConfig
from mres_jax.errors import ConfigError
from mres_jax.models.weights import ShardingRule
from mres_jax.nn import each_pack, num_ranks, param_spec

Batch = TypeVar("Batch")


def make_mesh(config: MeshConfig) -> Mesh | None:
    """Returns the mesh over the devices that are here; None for a run on one of them.

    Raises:
      ConfigError: the mesh takes another number of devices; with the nearest that would do.
    """
    count = len(jax.devices())
    if config.size == 1 and jax.process_count() == 1:
        return None
    if config.size != count:
        raise ConfigError(
            f"run: the mesh {config} takes {config.size} devices, here are {count}. "
            f"{nearest(config, count)}{_hint(config, count)}"
        )
    return mesh_of(config, jax.devices())


def mesh_of(config: MeshConfig, devices: Sequence[Any]) -> Mesh:
    """Returns the mesh over as many devices as it takes; neighbours share the inner axes.

    An axis may take a part of an axis of the slice, as 16 of 8 x 8 x 8 chips must.
    """
    names, types = tuple(config.sizes), (AxisType.Auto,) * len(config.sizes)
    laid_out = mesh_utils.create_device_mesh(
        tuple(config.sizes.values()), devices[: config.size], allow_split_physical_axes=True
    )
    return Mesh(laid_out, names, axis_types=types)


def abstract_mesh(config: MeshConfig) -> AbstractMesh:
    """Returns the same mesh over devices that are not here."""
    sizes = config.sizes
    return AbstractMesh(
        tuple(sizes.values()), tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes)
    )


def nearest(config: MeshConfig, count: int) -> str:
    """What would do: other data and fsdp axes at the same shares of a pack, if any."""
    inner = config.tensor * config.sequence
    if count % inner:
        tensor = math.gcd(config.tensor, count)
        return f"Take mesh.tensor={tensor}, mesh.sequence=1, mesh.fsdp={count // tensor}."
    outer = count // inner
    fsdp = math.gcd(config.fsdp, outer)
    return f"Take mesh.data={outer // fsdp}, mesh.fsdp={fsdp}."


def _hint(config: MeshConfig, count: int) -> str:
    if config.size < count or config.size % count or jax.process_count() > 1:
        return ""
    return f" If they are of {config.size // count} hosts, start it on each with --multihost."


def check_model(mesh: MeshConfig, model: Any, ladder: Sequence[Any]) -> None:
    """Refuses a mesh that does not divide the heads of a model or the rows of a ladder.

    Raises:
      ConfigError: the sizes, and the nearest that would do.
    """
    shares = mesh.tensor * mesh.sequence
    heads = _head_counts(model)
    for name, count in heads.items():
        if count % shares:
            best = math.gcd(*heads.values(), mesh.tensor)
            raise ConfigError(
                f"run: the mesh {mesh} shares heads out over tensor x sequence = {shares} devices, "
                f"but {name}={count}. Take mesh.tensor={best}, mesh.sequence=1."
            )
    for rung, name in itertools.product(ladder, ("max_patches", "max_tokens")):
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


def rule(mesh: Mesh) -> ShardingRule:
    """Where parameters lie, as `nn.state_shardings`, for whoever loads a model."""
    return lambda name, shape: NamedSharding(mesh, param_spec(name.split("."), shape, mesh.shape))


class Reading(NamedTuple):
    """Which packs a process reads, where a run has several.

    Attributes:
      ranks: of all processes.
      here: those with a device of this process.
      counted: those whose first device is of this process: each rank is counted once.
    """

    ranks: int
    here: frozenset[int]
    counted: frozenset[int]

    def is_read(self, kinds: Sequence[Any]) -> list[bool]:
        """Of the packs of a step by their kinds: those that are read here."""
        return [rank in self.here for _, rank in places(kinds, self.ranks)]

    def is_counted(self, kinds: Sequence[Any]) -> list[bool]:
        """Likewise those that are counted here."""
        return [rank in self.counted for _, rank in places(kinds, self.ranks)]


def reading(mesh: Mesh) -> Reading:
    """Returns which packs this process reads: those of its devices."""
    me, ranks = jax.process_index(), rank_count(mesh)
    rows = [[x.process_index for x in row] for row in mesh.devices.reshape(ranks, -1)]
    return Reading(
        ranks=ranks,
        here=frozenset(rank for rank, row in enumerate(rows) if me in row),
        counted=frozenset(rank for rank, row in enumerate(rows) if me == row[0]),
    )


def rank_count(mesh: Mesh) -> int:
    """Packs that are computed at a time."""
    return num_ranks(mesh.shape)


def places(kinds: Sequence[Any], ranks: int) -> list[tuple[int, int]]:
    """Returns group and rank of each pack of a step; a group is computed at a time.

    Packs of one kind go together, in their order. It depends on the kinds alone, which are planned,
    so processes agree on it without a word.
    """
    groups: dict[Any, list[int]] = {}
    for number, kind in enumerate(kinds):
        groups.setdefault(kind, []).append(number)
    found, first = {}, 0
    for numbers in groups.values():
        for order, number in enumerate(numbers):
            found[number] = first + order // ranks, order % ranks
        first += -(-len(numbers) // ranks)
    return [found[number] for number in range(len(kinds))]


def slowest_and_mean(costs: Sequence[int], kinds: Sequence[Any], ranks: int) -> tuple[float, float]:
    """Returns the cost of the slowest rank and that of a mean one, over a step.

    Ranks meet in every layer, so each group of packs takes as long as its dearest one.

    Args:
      costs: of the packs of a step.
      kinds: of the same packs.
      ranks: of the mesh.
    """
    groups: dict[int, list[int]] = {}
    for cost, (group, _) in zip(costs, places(kinds, ranks), strict=True):
        groups.setdefault(group, []).append(cost)
    return float(sum(map(max, groups.values()))), sum(costs) / ranks


def grouped(packs: Sequence[Batch], mesh: Mesh, kinds: Sequence[Any]) -> list[list[Batch]]:
    """Returns the packs of a step in groups of up to one per rank, in the order of their ranks.

    What is left of a kind is a smaller group. Of packs on ranks of other processes the contents do
    not matter.

    Args:
      packs: of one step.
      mesh: of the ranks.
      kinds: of the packs, by which those who read them shared them out.
    """
    slots = places(kinds, rank_count(mesh))
    groups: list[list[Batch]] = [[] for _ in range(1 + max(slots)[0])]
    for pack, (group, _) in zip(packs, slots, strict=True):
        groups[group].append(pack)
    return groups


def over_packs(loss: Callable[..., Any]) -> Callable[..., Any]:
    """Of a loss of one pack, that of packs on a leading axis: sums, each rank computing its own."""
    each = each_pack(loss)

    def total(packs: Any, parts: Any) -> Any:
        return jax.tree.map(lambda x: x.sum(axis=0), each(packs, parts))

    return total

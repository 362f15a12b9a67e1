"""Where parameters and activations lie on a mesh: logical axes, and the mesh axis of each.

The mesh has the axes `data`, `fsdp`, `tensor` and `sequence`, all of type Auto: XLA propagates what
is said here. Packs go to ranks of data x fsdp, one each. Without `jax.set_mesh` nothing here does
anything.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from mres_jax.errors import ConfigError
from mres_jax.nn.lora import LORA_FACTORS
from mres_jax.ops import PACKS, rows_axis

PACK = "packs"  # name of the leading axis of packs inside `jax.vmap`

# Logical axis -> mesh axis of parameters, of their gradients and of their optimiser state.
MESH_AXES: Mapping[str, str] = {
    "embed": "fsdp",
    "heads": "tensor",
    "mlp": "tensor",
    "vocab": "tensor",
}
# Name of a linear layer -> logical axes of its kernel [in, out]. Others are spread over fsdp alone.
KERNELS: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(("q", "k", "v", "qkv", "kv"), ("embed", "heads")),
    **dict.fromkeys(("o", "proj", "out"), ("heads", "embed")),
    **dict.fromkeys(("gate", "up", "fc1"), ("embed", "mlp")),
    **dict.fromkeys(("down", "fc2"), ("mlp", "embed")),
    "lm_head": ("embed", "vocab"),
}
VECTORS = ("bias", "scale")
EMBEDDING = ("vocab", "embed")  # of the table of a decoder's tokens

Layer = TypeVar("Layer", bound=nnx.Module)
Tree = TypeVar("Tree")


def logical_axes(names: Sequence[str]) -> tuple[str | None, ...]:
    """Returns the logical axes that end a parameter's shape, by the end of its dotted name.

    Example:
      >>> logical_axes(("text", "layers", "attn", "q", "kernel"))
      ('embed', 'heads')
      >>> logical_axes(("text", "layers", "attn", "q", "lora_b"))
      (None, 'heads')
    """
    owner, leaf = (names[-2] if len(names) > 1 else ""), names[-1]
    if leaf == "embedding":
        return EMBEDDING if owner == "embed" else (None, None)
    inside, outside = KERNELS.get(owner, (None, None))
    rows = {
        "kernel": (inside, outside),
        "lora_a": (inside, None),
        "lora_b": (None, outside),
        "bias": (None if outside == "embed" else outside,),
    }
    return rows.get(leaf, ())


def param_spec(
    names: Sequence[str], shape: Sequence[int], sizes: Mapping[str, int], *, gathered: bool = False
) -> PartitionSpec:
    """Returns how a parameter lies on a mesh; axes that do not divide it are left out.

    Where no logical axis takes `fsdp`, the largest axis of a matrix that it divides does. Scales
    and biases are not worth a gathering. Leading axes of stacked layers stay whole: a scan takes
    them one by one.

    Args:
      names: of the parameter; what stands before its layer does not count, so the state of an
        optimiser has the same rules.
      shape: of the parameter.
      sizes: devices of each axis of the mesh.
      gathered: as it is multiplied with: whole along `fsdp`.
    """
    axes: list[str | None] = [None] * len(shape)
    logical = logical_axes(names)[: len(shape)]
    for place, name in enumerate(logical, start=len(shape) - len(logical)):
        axis = MESH_AXES.get(name or "")
        if axis and sizes.get(axis, 1) > 1 and shape[place] % sizes[axis] == 0:
            axes[place] = axis
    fsdp = sizes.get("fsdp", 1)
    if fsdp > 1 and "fsdp" not in axes and len(shape) >= 2 and names[-1] not in VECTORS:
        free = [i for i in (len(shape) - 2, len(shape) - 1) if axes[i] is None]
        free = [i for i in free if shape[i] % fsdp == 0 and shape[i]]
        if free:
            axes[max(free, key=lambda i: shape[i])] = "fsdp"
    if gathered:
        axes = [None if axis == "fsdp" else axis for axis in axes]
    return PartitionSpec(*axes)


def state_shardings(tree: Any, mesh: Mesh | AbstractMesh, *, gathered: bool = False) -> Any:
    """Returns where the leaves of a state lie, by name: see `param_spec`.

    Args:
      tree: parameters, gradients or optimiser state, or their shapes.
      mesh: over devices, or abstract.
      gathered: whole along `fsdp`.
    """

    def place(path: Any, x: Any) -> NamedSharding:
        names = [str(entry.key) for entry in path if hasattr(entry, "key")]
        spec = param_spec(names, x.shape, mesh.shape, gathered=gathered) if names else None
        return NamedSharding(mesh, spec or PartitionSpec())  # pyright: ignore[reportArgumentType]

    return jax.tree_util.tree_map_with_path(place, tree)


def gather(module: Layer) -> Layer:
    """Makes the kernels and adapters of a module's own linear layers whole along `fsdp`, in place.

    Said where they are used, so that XLA gathers a layer's weights when they are needed and never
    the activations instead; its transpose scatters the gradient. What crosses the wires has the
    layer's dtype. Stacks are left to `scan_layers`.
    """
    sizes = mesh_sizes()
    if sizes.get("fsdp", 1) == 1:
        return module
    for path, layer in nnx.iter_modules(module):
        if isinstance(layer, nnx.Linear) and layer.kernel[...].ndim == 2:
            for leaf in ("kernel", *LORA_FACTORS):
                if not hasattr(layer, leaf):
                    continue
                variable: Any = getattr(layer, leaf)
                shared, names = variable[...], (*map(str, path), leaf)
                specs = (param_spec(names, shared.shape, sizes, gathered=g) for g in (True, False))
                whole = _gathered(*specs, shared.astype(layer.dtype or shared.dtype))
                setattr(layer, leaf, variable.replace(whole))
    return module


def gather_once(model: Layer) -> Layer:
    """The model with all its parameters whole along `fsdp`, for as long as it is kept.

    Kernels, adapters and biases of linear layers and tables of tokens are in the dtype that they
    are multiplied in, and are cast before they cross the wires. What `gather` says of them is true
    already, so programs that use this model exchange no weights along `fsdp`: decoding, which needs
    all weights for every token, gathers them for none. A device holds a copy of everything, but for
    what `tensor` shares out, beside the parameters that were given.

    Args:
      model: its parameters are left as they are; itself where the mesh in use has no `fsdp`.
    """
    sizes = mesh_sizes()
    if sizes.get("fsdp", 1) == 1:
        return model
    graphdef, state = nnx.split(model)
    return nnx.merge(graphdef, gather_program(graphdef, state, jax.sharding.get_mesh())(state))


def gather_program(graphdef: nnx.GraphDef, state: Any, mesh: Mesh | AbstractMesh) -> Any:
    """The jitted program of `gather_once`, of a state of these shapes over a mesh."""
    leaves, treedef = jax.tree.flatten(state_shardings(state, mesh, gathered=True))
    return _gather_program(graphdef, tuple(leaves), treedef)


@functools.lru_cache(maxsize=4)
def _gather_program(graphdef: nnx.GraphDef, leaves: tuple[NamedSharding, ...], treedef: Any) -> Any:
    def gather_weights(state: Any) -> Any:
        model = nnx.merge(graphdef, state)
        for _, layer in nnx.iter_modules(model):
            if isinstance(layer, nnx.Linear | nnx.Embed):
                _cast(layer)
        return nnx.state(model)

    return jax.jit(gather_weights, out_shardings=jax.tree.unflatten(treedef, leaves))


def _cast(layer: nnx.Linear | nnx.Embed) -> None:
    """Puts a layer's parameters into the dtype that it promotes them to."""
    for leaf in ("kernel", "bias", "embedding", *LORA_FACTORS):
        variable: Any = getattr(layer, leaf, None)
        if isinstance(variable, nnx.Variable) and layer.dtype is not None:
            setattr(layer, leaf, variable.replace(variable[...].astype(layer.dtype)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _gathered(whole: PartitionSpec, shared: PartitionSpec, kernel: jax.Array) -> jax.Array:
    """The kernel lying as `whole`; its gradient as `shared`, which spares every device the rest."""
    del shared
    return jax.lax.with_sharding_constraint(kernel, whole)


def _scattered(whole: PartitionSpec, shared: PartitionSpec, saved: None, gradient: jax.Array):
    del whole, saved
    return (jax.lax.with_sharding_constraint(gradient, shared),)


_gathered.defvjp(lambda whole, shared, kernel: (_gathered(whole, shared, kernel), None), _scattered)


def constrain_rows(tree: Any) -> Any:
    """Matrices of a tree, rows of packs, with each pack on its rank and its rows shared out."""
    sizes = mesh_sizes()
    if math.prod(sizes.values()) == 1:
        return tree

    def constrain(x: Any) -> Any:
        if getattr(x, "ndim", 0) != 2:
            return x
        where = PartitionSpec(rows_axis(x.shape[0]), None)
        return jax.lax.with_sharding_constraint(x, where)

    return jax.tree.map(constrain, tree)


def pack_sharding(mesh: Mesh) -> NamedSharding:
    """Returns where packs with a leading axis lie."""
    return NamedSharding(mesh, PartitionSpec(PACKS))


def on_ranks(trees: Sequence[Tree], mesh: Mesh) -> Tree:
    """Trees of arrays of the same shapes, one for each rank, on a leading axis over the ranks.

    Ranks that are left over get zeros. Each process reads those of its own ranks, of the others the
    contents do not matter.
    """
    where, ranks = pack_sharding(mesh), num_ranks(mesh.shape)

    def put(*leaves: Any) -> jax.Array:
        def part(index: Any) -> np.ndarray:
            return np.stack([leaves[rank] for rank in range(*index[0].indices(ranks))])

        return jax.make_array_from_callback((ranks, *np.shape(leaves[0])), where, part)

    nothing = jax.tree.map(np.zeros_like, trees[0])
    return jax.tree.map(put, *trees, *[nothing] * (ranks - len(trees)))


def each_pack(call: Callable[..., Any], in_axes: Any = 0, out_axes: Any = 0) -> Callable[..., Any]:
    """Of what is computed of one pack, the same of packs on an axis, each rank computing its own.

    Args:
      call: of one pack.
      in_axes: which axes the packs of each argument are on, as of `jax.vmap`.
      out_axes: likewise of the results.
    """
    return jax.vmap(call, in_axes, out_axes, axis_name=PACK, spmd_axis_name=PACKS)


def any_pack(flag: jax.Array) -> jax.Array:
    """Whether a flag is set for any of the packs that are computed together.

    All ranks then take the same branch: one that waits for the others in an exchange never waits
    for one that is elsewhere.
    """
    try:
        jax.lax.axis_size(PACK)
    except NameError:  # a pack alone
        return flag
    return jax.lax.pmax(flag.astype(jnp.int32), PACK) > 0


def num_ranks(sizes: Mapping[str, int] | None = None) -> int:
    """Returns how many packs are computed at a time.

    Args:
      sizes: devices of each axis of a mesh; None for the mesh in use, 1 rank without one.
    """
    sizes = mesh_sizes() if sizes is None else sizes
    return math.prod(sizes.get(axis, 1) for axis in PACKS)


def mesh_sizes() -> Mapping[str, int]:
    """Devices of each axis of the mesh in use; none without one.

    Raises:
      ConfigError: the mesh has axes of type Explicit, as those of `jax.make_mesh` have by default.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.are_all_axes_manual:
        return {}
    if mesh.explicit_axes:
        raise ConfigError(
            f"mesh: the axes {', '.join(map(str, mesh.explicit_axes))} are of type Explicit, but "
            f"XLA finds out here where activations lie. Make it with "
            f"jax.make_mesh({mesh.axis_sizes}, {mesh.axis_names}, "
            f"axis_types=(jax.sharding.AxisType.Auto,) * {len(mesh.axis_names)})."
        )
    return dict(mesh.shape)

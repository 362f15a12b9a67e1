"""A model out of a directory of either kind."""

import dataclasses
import functools
import os
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from jax.typing import DTypeLike

from mres_jax import nn
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.tokenizer import Tokenizer
from mres_jax.models._description import describe
from mres_jax.models._families import Family, family_of
from mres_jax.models._hub import resolve
from mres_jax.models.checkpoint_io import open_checkpoint, read_checkpoint, stored_arrays
from mres_jax.models.key_table import Parameters, variables
from mres_jax.models.unread import Unread
from mres_jax.models.vlm import PackedVLM
from mres_jax.models.weights import ShardingRule, fully_sharded, load_weights, open_weights

ADAPTERS = "adapters"  # tree of a training run's low-rank factors, merged when it is loaded


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model with all that it takes to use it.

    Attributes:
      model: parameters in place, or `Unread`.
      spec: what the host side needs.
      tokenizer: text to ids and back.
      policy: resolution policy it was trained with, if its directory says.
      step: training step, 0 where unknown.
      extra: other facts kept with it.
      assets: files of its directory beside the weights, by name.
    """

    model: PackedVLM
    spec: ProcessorSpec
    tokenizer: Tokenizer
    policy: str | None = None
    step: int = 0
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    assets: Mapping[str, bytes] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def config(self) -> Any:
        """Sizes of the model."""
        return self.model.config

    @property
    def family(self) -> Family:
        """How to convert it."""
        return family_of(self.config)


def load_model(
    model: str | os.PathLike[str] | None,
    *,
    dtype: DTypeLike = jnp.float32,
    param_dtype: DTypeLike | Literal["stored"] | None = None,
    mesh: jax.sharding.Mesh | None = None,
    sharding: ShardingRule | None = None,
) -> LoadedModel:
    """Loads a model by its name, or from either kind of directory.

    Args:
      model: Hugging Face directory, checkpoint of ours, a run's directory, a hub id
        `org/name[@revision]`, or `mres-tiny`, which None takes too.
      dtype: computations run in it.
      param_dtype: parameters are kept in it; None takes `dtype`, `stored` the directory's own.
      mesh: devices to spread the parameters over, each along its largest divisible axis.
      sharding: a rule of one's own for that, from dotted path and shape.

    Raises:
      CheckpointError: no such model, a wrong directory, damaged files, keys or sizes that do not
        match.
    """
    if mesh is not None and sharding is None:
        sharding = fully_sharded(mesh)
    param_dtype = dtype if param_dtype is None else param_dtype
    return _load(resolve(model), dtype, param_dtype, sharding)


def open_model(directory: str | os.PathLike[str]) -> LoadedModel:
    """A model to be written elsewhere: its parameters are `Unread`, in the type they are stored in.

    Raises:
      CheckpointError: as `load_model`.
    """
    return _load(directory, jnp.float32, "stored", None, unread=True)


def _load(
    directory: str | os.PathLike[str],
    dtype: Any,
    param_dtype: Any,
    sharding: ShardingRule | None,
    *,
    unread: bool = False,
) -> LoadedModel:
    kind, place, description = describe(directory)
    skeleton = description.family.skeleton(description.config, dtype=dtype)
    if kind == "huggingface":
        table = description.family.key_table(description.config)
        load = open_weights if unread else functools.partial(load_weights, sharding=sharding)
        state = load(place, skeleton, table, dtype=param_dtype)
    else:
        extra = dict(description.extra)
        traits = extra.pop(ADAPTERS, {})
        state = _read_orbax(place, skeleton, traits, param_dtype, sharding, unread=unread)
        description = description._replace(extra=extra)
    return LoadedModel(
        model=_filled(skeleton, state),
        spec=description.spec,
        tokenizer=description.tokenizer,
        policy=description.policy,
        step=description.step,
        extra=description.extra,
        assets=description.assets,
    )


def _read_orbax(
    directory: epath.Path,
    skeleton: PackedVLM,
    traits: Mapping[str, Any],
    param_dtype: Any,
    sharding: ShardingRule | None,
    *,
    unread: bool,
) -> Parameters:
    """Parameters of a checkpoint, with the adapters of a training run merged."""
    stored = stored_arrays(directory)
    types = {name: jnp.dtype(kind) for name, (_, kind) in stored.get("model", {}).items()}
    if not (isinstance(param_dtype, str) and param_dtype == "stored"):
        types = dict.fromkeys(types, jnp.dtype(param_dtype))
    abstract = abstract_parameters(skeleton, types, sharding)
    adapters = {
        name: jax.ShapeDtypeStruct(
            tuple(shape), kind, sharding=sharding(name, tuple(shape)) if sharding else None
        )
        for name, (shape, kind) in stored.get(ADAPTERS, {}).items()
    }
    trees = {"model": abstract} | ({ADAPTERS: adapters} if adapters else {})
    if unread:
        read = open_checkpoint(directory, trees)
    else:
        read = read_checkpoint(directory, trees, cast=True)
    return _merged(read["model"], read.get(ADAPTERS, {}), traits, param_dtype)


def _merged(
    state: Parameters, adapters: Mapping[str, Any], traits: Mapping[str, Any], param_dtype: Any
) -> Parameters:
    """Adds the product of each adapter to its kernel; `stored` leaves the sum in float32."""
    flat = []
    for path, variable in variables(state):
        *owner, last = map(str, path)
        a, b = (adapters.get(".".join([*owner, factor])) for factor in nn.LORA_FACTORS)
        if last == "kernel" and a is not None and b is not None:
            kernel = _with_adapter(variable.get_value(), a, b, traits["scale"])
            is_stored = isinstance(param_dtype, str) and param_dtype == "stored"
            variable = variable.replace(kernel if is_stored else kernel.astype(param_dtype))
        flat.append((path, variable))
    return nnx.from_flat_state(flat)


def _with_adapter(kernel: Any, a: Any, b: Any, scale: float) -> Any:
    """The sum, float32; of `Unread` arrays one that is made when it is read."""
    if not isinstance(kernel, Unread):
        return nn.merge_kernel(kernel, a, b, scale)

    def read() -> np.ndarray:
        whole, down, up = (jnp.asarray(part.read()) for part in (kernel, a, b))
        return np.asarray(nn.merge_kernel(whole, down, up, scale))

    return Unread(shape=kernel.shape, dtype=np.dtype(np.float32), read=read)


def abstract_parameters(
    skeleton: PackedVLM, types: Mapping[str, Any], sharding: ShardingRule | None
) -> Parameters:
    """The skeleton's parameters with types by dotted path and the shardings of a rule."""
    flat = []
    for path, variable in variables(skeleton):
        name, leaf = ".".join(map(str, path)), variable.get_value()
        struct = jax.ShapeDtypeStruct(
            leaf.shape,
            types.get(name, leaf.dtype),
            sharding=sharding(name, leaf.shape) if sharding else None,
        )
        flat.append((path, variable.replace(struct)))
    return nnx.from_flat_state(flat)


def _filled(skeleton: PackedVLM, state: Parameters) -> PackedVLM:
    nnx.update(skeleton, state)
    empty = [x for x in jax.tree.leaves(nnx.state(skeleton)) if isinstance(x, jax.ShapeDtypeStruct)]
    assert not empty, f"{len(empty)} variables besides parameters were never filled"
    return skeleton

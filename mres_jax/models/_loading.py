"""A model out of a directory of either kind."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from jax.typing import DTypeLike

from mres_jax import nn
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.tokenizer import FILE as TOKENIZER, Tokenizer
from mres_jax.errors import CheckpointError
from mres_jax.models._detect import checkpoint_directory, detect
from mres_jax.models._families import Family, family_named
from mres_jax.models.checkpoint_io import (
    open_checkpoint,
    read_assets,
    read_checkpoint,
    stored_arrays,
)
from mres_jax.models.files import check_local, parse_json, read_json, read_small
from mres_jax.models.hf_fields import Fields
from mres_jax.models.key_table import Parameters, variables
from mres_jax.models.manifest import read_manifest
from mres_jax.models.unread import Unread
from mres_jax.models.vlm import PackedVLM
from mres_jax.models.weights import ShardingRule, fully_sharded, load_weights, open_weights

# Files of a model directory that are not weights; carried along unread unless they are needed.
ASSETS = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
    "vocab.json",
)
CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"  # transformers 5 nests the image processor in it
ADAPTERS = "adapters"  # tree of a training run's low-rank factors, merged when it is loaded
TRAITS = "mres.json"  # what config.json has no field for: policy, step, notes


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model with all that it takes to use it.

    Attributes:
      model: parameters in place, or `Unread`.
      config: its sizes.
      spec: what the host side needs.
      tokenizer: text to ids and back.
      family: how to convert it.
      policy: resolution policy it was trained with, if its directory says.
      step: training step, 0 where unknown.
      extra: other facts kept with it.
      assets: files of its directory beside the weights, by name.
    """

    model: PackedVLM
    config: Any
    spec: ProcessorSpec
    tokenizer: Tokenizer
    family: Family
    policy: str | None = None
    step: int = 0
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    assets: Mapping[str, bytes] = dataclasses.field(default_factory=dict, repr=False)


def load_model(
    directory: str | os.PathLike[str],
    *,
    dtype: DTypeLike = jnp.float32,
    param_dtype: DTypeLike | Literal["stored"] | None = None,
    mesh: jax.sharding.Mesh | None = None,
    sharding: ShardingRule | None = None,
) -> LoadedModel:
    """Loads a model from either kind of directory.

    Args:
      directory: Hugging Face directory, checkpoint of ours, or a run's directory.
      dtype: computations run in it.
      param_dtype: parameters are kept in it; None takes `dtype`, `stored` the directory's own.
      mesh: devices to spread the parameters over, each along its largest divisible axis.
      sharding: a rule of one's own for that, from dotted path and shape.

    Raises:
      CheckpointError: a wrong directory, damaged files, keys or sizes that do not match.
    """
    if mesh is not None and sharding is None:
        sharding = fully_sharded(mesh)
    param_dtype = dtype if param_dtype is None else param_dtype
    return _load(directory, dtype, param_dtype, sharding)


def open_model(directory: str | os.PathLike[str]) -> LoadedModel:
    """A model to be written elsewhere: its parameters are `Unread`, in the type they are stored in.

    Raises:
      CheckpointError: as `load_model`.
    """
    return _load(directory, jnp.float32, "stored", None, unread=True)


def _load(directory: str | os.PathLike[str], *options: Any, unread: bool = False) -> LoadedModel:
    if detect(directory) == "huggingface":
        check_local(directory)
        return _load_huggingface(pathlib.Path(directory), *options, unread=unread)
    return _load_orbax(checkpoint_directory(directory), *options, unread=unread)


def _load_huggingface(
    directory: pathlib.Path,
    dtype: Any,
    param_dtype: Any,
    sharding: ShardingRule | None,
    *,
    unread: bool,
) -> LoadedModel:
    content = read_json(directory / CONFIG)
    family = family_named(content.get("model_type"), directory / CONFIG)
    paths = {name: directory / name for name in (*ASSETS, CONFIG, TRAITS)}
    assets = {name: read_small(path) for name, path in paths.items() if path.is_file()}
    traits = Fields(_json(directory, assets, TRAITS), f"{directory}/{TRAITS}")
    assets.pop(TRAITS, None)
    preprocessor = image_processor(directory, assets) or {}  # none, and yet not made here
    config = family.config_from_hf(content, preprocessor)
    skeleton = family.skeleton(config, dtype=dtype)
    load = open_weights if unread else functools.partial(load_weights, sharding=sharding)
    state = load(directory, skeleton, family.key_table(config), dtype=param_dtype)
    return LoadedModel(
        model=_filled(skeleton, state),
        config=config,
        family=family,
        policy=traits.get("policy", None, str),
        step=traits.get("step", 0, int),
        extra=traits.get("extra", {}, dict),
        assets=assets,
        **_host_side(directory, family, config, assets, preprocessor),
    )


def _load_orbax(
    directory: epath.Path,
    dtype: Any,
    param_dtype: Any,
    sharding: ShardingRule | None,
    *,
    unread: bool,
) -> LoadedModel:
    manifest = read_manifest(directory)
    family = family_named(manifest.config.get("model_type"), directory)
    config = family.config_from_hf(manifest.config)
    skeleton = family.skeleton(config, dtype=dtype)
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
    extra = dict(manifest.extra)
    state = _merged(read["model"], read.get(ADAPTERS, {}), extra.pop(ADAPTERS, {}), param_dtype)
    assets = read_assets(directory)
    preprocessor = image_processor(directory, assets)
    return LoadedModel(
        model=_filled(skeleton, state),
        config=config,
        family=family,
        policy=manifest.policy,
        step=manifest.step,
        extra=extra,
        assets=assets,
        **_host_side(directory, family, config, assets, preprocessor),
    )


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


def _host_side(
    directory: Any,
    family: Family,
    config: Any,
    assets: Mapping[str, bytes],
    preprocessor: Mapping[str, Any] | None,
) -> dict[str, Any]:
    if TOKENIZER not in assets:
        raise CheckpointError(
            f"{directory}: no {TOKENIZER}; copy it from the model that the weights came from."
        )
    tokenizer = Tokenizer.parse(assets[TOKENIZER], f"{directory}/{TOKENIZER}")
    spec = family.make_spec(config, tokenizer.token_id, preprocessor=preprocessor)
    return {"tokenizer": tokenizer, "spec": spec}


def image_processor(directory: Any, assets: Mapping[str, bytes]) -> dict[str, Any] | None:
    """Settings of the image processor, where transformers looks for them; None where nowhere."""
    processor = Fields(_json(directory, assets, PROCESSOR), f"{directory}/{PROCESSOR}")
    nested = processor.get("image_processor", None, dict)
    if nested is None and PREPROCESSOR in assets:
        return _json(directory, assets, PREPROCESSOR)
    return nested


def _json(directory: Any, assets: Mapping[str, bytes], name: str) -> dict[str, Any]:
    return parse_json(assets[name], f"{directory}/{name}") if name in assets else {}


class Processor(NamedTuple):
    """What the host side needs of a model."""

    spec: ProcessorSpec
    tokenizer: Tokenizer


def load_processor(directory: str | os.PathLike[str]) -> Processor:
    """Loads what the host side needs of a model, without its weights.

    Args:
      directory: as for `load_model`.

    Raises:
      CheckpointError: a wrong directory, or one without a tokenizer.
    """
    if detect(directory) == "huggingface":
        check_local(directory)
        place: Any = pathlib.Path(directory)
        content = read_json(place / CONFIG)
        assets = {n: read_small(place / n) for n in ASSETS if (place / n).is_file()}
        preprocessor = image_processor(place, assets) or {}  # none, and yet not made here
        settings = preprocessor
    else:
        place = checkpoint_directory(directory)
        content, assets = read_manifest(place).config, read_assets(place)
        preprocessor, settings = image_processor(place, assets), None  # config.json has them all
    family = family_named(content.get("model_type"), place)
    config = family.config_from_hf(content, settings)
    return Processor(**_host_side(place, family, config, assets, preprocessor))

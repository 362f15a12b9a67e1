"""Low-rank adapters in the format of `peft`: a configuration and one small safetensors file.

Axes: l layers of a stack, i input width, o output width, r rank.
"""

import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import save

from mres_jax import nn
from mres_jax.errors import CheckpointError
from mres_jax.models._description import describe
from mres_jax.models._loading import ADAPTERS
from mres_jax.models.checkpoint_io import read_checkpoint, stored_arrays
from mres_jax.models.files import new_directory, read_json, write_json
from mres_jax.models.key_table import Key, KeyTable, flatten, layer_names
from mres_jax.models.manifest import read_manifest
from mres_jax.models.safetensors_files import FLOATS, open_tensors

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # before the names of modules, as `peft` wraps a model
_A, _B = ".lora_A.weight", ".lora_B.weight"
# Fields that make it another product than `B A`, or put it elsewhere.
_UNREAD = (
    "alora_invocation_tokens",
    "alpha_pattern",
    "arrow_config",
    "fan_in_fan_out",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "rank_pattern",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
)
# Beginnings that leave the weights underneath alone; `peft` changes them for all others.
_STARTS = ("eva", "gaussian", "mica", "orthogonal")


class Factors(NamedTuple):
    """The adapter of one linear layer, or of a stack of them.

    Attributes:
      a: `[*l, i, r]`.
      b: `[*l, r, o]`.
    """

    a: np.ndarray
    b: np.ndarray


def save_adapter(
    model: nnx.Module,
    directory: str | os.PathLike[str],
    table: KeyTable,
    *,
    base: str = "",
    full: Sequence[str] = (),
) -> None:
    """Writes the adapters of a model as `peft` does; `PeftModel.from_pretrained` reads them.

    Args:
      model: with adapters, see `nn.add_lora`.
      directory: a new one.
      table: file keys of the model's family.
      base: name or directory of the model underneath, for readers.
      full: dotted prefixes of parameters that were trained whole, such as `vision.merger.up`; they
        are kept beside (`modules_to_save`).

    Raises:
      CheckpointError: `directory` holds something; no adapters; ranks or scales that differ.
      RunError: the disk is full; nothing is left behind.
    """
    layers = {n: x for n, x in nn.linear_layers(model).items() if isinstance(x, nn.LoRALinear)}
    factors = {
        name: Factors(np.asarray(layer.lora_a[...]), np.asarray(layer.lora_b[...]))
        for name, layer in layers.items()
    }
    scales = {float(layer.scale) for layer in layers.values()}
    if len(scales) > 1:
        raise CheckpointError(f"adapter: scales {sorted(scales)}; one file has one of them.")
    parameters = flatten(model)
    whole = {n: np.asarray(x) for n, x in parameters.items() if _is_below(n, full)}
    write_adapter(factors, directory, table, scale=min(scales, default=1.0), base=base, whole=whole)


def write_adapter(
    factors: Mapping[str, Factors],
    directory: str | os.PathLike[str],
    table: KeyTable,
    *,
    scale: float,
    base: str = "",
    whole: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes factors by the dotted names of their layers; see `save_adapter`."""
    ranks = {factor.a.shape[-1] for factor in factors.values()}
    if len(ranks) != 1:
        found = f"ranks {sorted(ranks)}; one file has one of them" if ranks else "there are none"
        raise CheckpointError(f"adapter: {found}.")
    rank, rows = ranks.pop(), {key.ours: key for key in table.keys}
    tensors: dict[str, np.ndarray] = {}
    targets: list[str] = []
    for name, factor in factors.items():
        key = rows[f"{name}.kernel"]
        for module, a, b in _modules(key, factor, table):
            targets.append(module)
            tensors[PREFIX + module + _A], tensors[PREFIX + module + _B] = a, b
    kept = _whole(whole or {}, rows, table)
    content = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": scale * rank,
        "lora_dropout": 0.0,
        "target_modules": sorted(targets),
        "modules_to_save": sorted({name.rpartition(".")[0] for name in kept}) or None,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "inference_mode": True,
    }
    tensors |= {PREFIX + name: array for name, array in kept.items()}
    with new_directory(directory) as scratch:
        write_json(scratch / CONFIG, content)
        (scratch / WEIGHTS).write_bytes(save(tensors, {"format": "pt"}))


def load_adapter(model: nnx.Module, directory: str | os.PathLike[str], table: KeyTable) -> None:
    """Puts the adapters of a directory of `peft`'s format on a model, in place.

    A layer of a stack that the file does not name, as with `layers_to_transform`, gets factors of
    zeros.

    Raises:
      CheckpointError: damaged files; no tensors, or one factor without the other; another kind of
        adapter; keys or shapes that are not those of the model, all in one message. The model is
        then unchanged.
    """
    directory = pathlib.Path(directory)
    if not (directory / CONFIG).is_file():
        raise CheckpointError(f"{directory}: no {CONFIG}, so it is no adapter of peft's format.")
    scale, rank = _read_config(directory)
    tensors = _read_tensors(directory)
    layers, parameters = nn.linear_layers(model), flatten(model)
    places = _places(table, parameters)
    stacks: dict[str, Factors] = {}
    whole: dict[str, np.ndarray] = {}
    problems: list[str] = []
    for name, tensor in tensors.items():
        module = name.removeprefix(PREFIX)
        factor = next((suffix for suffix in (_A, _B) if module.endswith(suffix)), None)
        place = places.get(
            table.canonical(module.removesuffix(factor) + ".weight" if factor else module)
        )
        if place is None:
            problems.append(f"{name} is no module of the model")
        elif factor is None:
            problems += _put_whole(whole, parameters, place, tensor, name)
        else:
            problems += _put_factor(stacks, layers, place, tensor, factor, rank, name)
            other = name.removesuffix(factor) + (_B if factor == _A else _A)
            if other not in tensors:
                problems.append(f"{other} is missing, but {factor[1:]} is there")
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise CheckpointError(f"{directory}: {'; '.join(problems[:5])}{more}.")
    nn.add_lora(model, list(stacks), rank=rank, scale=scale, rngs=nnx.Rngs(0))
    for name, layer in nn.linear_layers(model).items():
        if name in stacks and isinstance(layer, nn.LoRALinear):
            layer.lora_a[...] = jnp.asarray(stacks[name].a)
            layer.lora_b[...] = jnp.asarray(stacks[name].b)
    _set_whole(model, whole)


def export_adapter(source: str | os.PathLike[str], directory: str | os.PathLike[str]) -> None:
    """Writes the adapters of a training run's checkpoint as `peft` does.

    What the run trained whole beside them is kept with them.

    Args:
      source: a run's directory, or a step of it.
      directory: a new one.

    Raises:
      CheckpointError: a checkpoint without adapters, a damaged one, or one that cannot be read.
    """
    kind, place, description = describe(source)
    traits = description.extra.get(ADAPTERS)
    if kind != "orbax" or traits is None:
        raise CheckpointError(f"{source}: was trained without adapters, so there are none.")
    stored, own = stored_arrays(place), read_manifest(place).arrays
    trees = [ADAPTERS, *(["model"] if own.get("model") else ())]
    abstract = {
        tree: {
            name: jax.ShapeDtypeStruct(tuple(shape), kind)
            for name, (shape, kind) in stored[tree].items()
        }
        for tree in trees
    }
    read = read_checkpoint(place, abstract)
    arrays = {name: np.asarray(x, np.float32) for name, x in read[ADAPTERS].items()}
    owners = dict.fromkeys(name.rpartition(".")[0] for name in arrays)
    write_adapter(
        {o: Factors(*(arrays[f"{o}.{factor}"] for factor in nn.LORA_FACTORS)) for o in owners},
        directory,
        description.family.key_table(description.config),
        scale=float(traits["scale"]),
        whole={name: np.asarray(read["model"][name]) for name in own.get("model", ())},
    )


def _modules(key: Key, factor: Factors, table: KeyTable):
    """Names of modules with A `[r i]` and B `[o r]`, one per layer."""
    leaf = np.empty(factor.a.shape[:1] if key.stacked else ())
    for i, name in enumerate(layer_names(key, leaf)):
        a, b = (part[i] if key.stacked else part for part in factor)
        module = table.module(name).removesuffix(".weight")
        yield module, np.ascontiguousarray(a.T), np.ascontiguousarray(b.T)


def _whole(
    arrays: Mapping[str, np.ndarray], rows: Mapping[str, Key], table: KeyTable
) -> dict[str, np.ndarray]:
    kept = {}
    for name, array in arrays.items():
        key = rows[name]
        for i, hf in enumerate(layer_names(key, array)):
            if "." not in hf:
                raise CheckpointError(
                    f"adapter: {hf} is a parameter of the model itself; an adapter keeps whole "
                    "modules. Leave it as it is, or keep the checkpoint."
                )
            kept[table.module(hf)] = np.ascontiguousarray(
                key.to_hf(array[i] if key.stacked else array)
            )
    return kept


class _Place(NamedTuple):
    """Where a file's tensor belongs: a row, and the layer of a stack."""

    key: Key
    layer: int | None


def _places(table: KeyTable, parameters: Mapping[str, Any]) -> dict[str, _Place]:
    return {
        name: _Place(key, i if key.stacked else None)
        for key in table.keys
        if key.ours in parameters
        for i, name in enumerate(layer_names(key, parameters[key.ours]))
    }


def _put_factor(
    stacks: dict[str, Factors],
    layers: Mapping[str, nnx.Linear],
    place: _Place,
    tensor: np.ndarray,
    factor: str,
    rank: int,
    name: str,
) -> list[str]:
    """Lays a factor into its stack; returns what is wrong with it."""
    owner = place.key.ours.removesuffix(".kernel")
    if owner not in layers:
        return [f"{name} is on no linear layer"]
    *stack, i, o = layers[owner].kernel.shape
    expected = (rank, i) if factor == _A else (o, rank)
    if tensor.shape != expected:
        return [f"{name} is {list(tensor.shape)}, the model needs {list(expected)}"]
    both = stacks.setdefault(
        owner,
        Factors(np.zeros((*stack, i, rank), np.float32), np.zeros((*stack, rank, o), np.float32)),
    )
    both[factor == _B][... if place.layer is None else place.layer] = tensor.T
    return []


def _put_whole(
    whole: dict[str, np.ndarray],
    parameters: Mapping[str, Any],
    place: _Place,
    tensor: np.ndarray,
    name: str,
) -> list[str]:
    leaf = parameters[place.key.ours]
    shape = tuple(leaf.shape if place.layer is None else leaf.shape[1:])
    if tensor.shape != place.key.hf_shape(shape):
        return [f"{name} is {list(tensor.shape)}, the model has {list(shape)}"]
    array = whole.setdefault(place.key.ours, np.array(leaf))
    array[... if place.layer is None else place.layer] = place.key.to_ours(tensor)
    return []


def _set_whole(model: nnx.Module, whole: Mapping[str, np.ndarray]) -> None:
    for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        name = ".".join(map(str, path))
        if name in whole:
            value = jnp.asarray(whole[name], variable.get_value().dtype)
            nnx.update(model, nnx.from_flat_state([(path, variable.replace(value))]))


def _read_config(directory: pathlib.Path) -> tuple[float, int]:
    """Scale and rank."""
    file = directory / CONFIG
    content = read_json(file)
    kind, rank, alpha = (content.get(name) for name in ("peft_type", "r", "lora_alpha"))
    is_bool = isinstance(alpha, bool)
    scale = float(alpha) if isinstance(alpha, int | float) and not is_bool else math.nan
    if kind != "LORA" or type(rank) is not int or rank < 1 or not math.isfinite(scale):
        raise CheckpointError(
            f"{file}: peft_type={kind!r}, r={rank!r}, lora_alpha={alpha!r}; only LoRA with one "
            "rank is read."
        )
    others = [name for name in _UNREAD if content.get(name)]
    if content.get("bias", "none") != "none":
        others.append("bias")
    if others:
        raise CheckpointError(f"{file}: {', '.join(others)} is not read.")
    start = content.get("init_lora_weights")
    if not (start is None or type(start) is bool or str(start).lower() in _STARTS):
        raise CheckpointError(
            f"{file}: init_lora_weights is {start!r}, with which peft changes the weights "
            "underneath. Save the adapter with path_initial_model_for_weight_conversion, or merge "
            "it in peft."
        )
    return scale / (math.sqrt(rank) if content.get("use_rslora") else rank), rank


def _read_tensors(directory: pathlib.Path) -> dict[str, np.ndarray]:
    stored = open_tensors(directory)
    if not stored:
        raise CheckpointError(f"{directory}: holds no tensors, so no adapter; save it again.")
    wrong = [tensor.name for tensor in stored.values() if tensor.dtype not in FLOATS]
    if wrong:
        raise CheckpointError(f"{directory}: {wrong[0]} is no float.")
    return {name: tensor.read().astype(np.float32) for name, tensor in stored.items()}


def _is_below(name: str, prefixes: Sequence[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes) and (
        name.rpartition(".")[2] not in nn.LORA_FACTORS
    )

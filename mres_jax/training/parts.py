"""Which parameters of a learner are trained, how fast, and through which adapters."""

import fnmatch
from collections.abc import Iterable, Mapping
from typing import Any

from flax import nnx

from mres_jax.config import LoRA, did_you_mean
from mres_jax.errors import ConfigError
from mres_jax.nn import LoRAParam, add_lora, linear_layers

Path = tuple[str, ...]
MODEL = "model"  # where a learner keeps it; what stands elsewhere are auxiliary heads


def adapt(model: nnx.Module, config: LoRA, *, rngs: nnx.Rngs) -> None:
    """Puts the adapters of a run on its model, in place.

    Raises:
      ConfigError: a pattern that fits no linear layer, with names that are near.
    """
    names = match_targets(linear_layers(model), config.targets)
    add_lora(model, names, rank=config.rank, scale=config.scale, rngs=rngs)


def match_targets(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """Returns the names that a pattern fits: equal, below it, or as a glob.

    Example:
      >>> match_targets(["text.layers.attn.q", "text.lm_head"], ["text.layers"])
      ['text.layers.attn.q']
    """
    names = list(names)
    chosen: dict[str, None] = {}
    for pattern in patterns:
        fits = [n for n in names if is_below(n, pattern) or fnmatch.fnmatchcase(n, pattern)]
        if not fits:
            raise ConfigError(
                f"peft: {pattern!r} fits no linear layer.{did_you_mean(pattern, names)} Have "
                f"{', '.join(names)}."
            )
        chosen |= dict.fromkeys(fits)
    return list(chosen)


def trained_rates(learner: nnx.Module, train: Mapping[str, float] | None) -> dict[Path, float]:
    """Returns the multiplier of the learning rate of every parameter that is trained.

    Adapters and auxiliary heads have 1.0. `train` None means the whole model, or where it has
    adapters nothing else of it.

    Raises:
      ConfigError: a prefix that fits no parameter, with the nearest name; a kernel that is trained
        in full beside its own adapter.
    """
    variables = {tuple(map(str, path)): x for path, x in nnx.to_flat_state(nnx.state(learner))}
    adapters = [path for path, x in variables.items() if isinstance(x, LoRAParam)]
    own = [path[1:] for path in variables if path[0] == MODEL and path not in adapters]
    if train is None:
        train = {} if adapters else {"": 1.0}
    check_prefixes("train", train, [".".join(path) for path in own])
    rates = {path: 1.0 for path in variables if path in adapters or path[0] != MODEL}
    for path in own:
        prefixes = [prefix for prefix in train if is_below(".".join(path), prefix)]
        if prefixes:
            rates[MODEL, *path] = float(train[max(prefixes, key=len)])
    for path in adapters:
        if (*path[:-1], "kernel") in rates:
            name = ".".join(path[1:-1])
            raise ConfigError(
                f"run: `train` names {name}.kernel and `peft` puts an adapter on it: give one of "
                "the two."
            )
    return rates


def describe_parts(params: Any, frozen: Any, rates: Mapping[Path, float]) -> str:
    """One line: what is trained, at which multiple of the rate, and what is not."""
    trained: dict[str, int] = {}
    for path, variable in nnx.to_flat_state(params):
        text = _part(path, variable) + f" x{rates[tuple(map(str, path))]:g}"
        trained[text] = trained.get(text, 0) + variable.get_value().size
    still: dict[str, int] = {}
    for path, variable in nnx.to_flat_state(frozen):
        text = f"{_part(path, variable)} in {variable.get_value().dtype.name}"
        still[text] = still.get(text, 0) + variable.get_value().size
    line = f"trains {_counts(trained)}"
    return f"{line}; frozen {_counts(still)}" if still else line


def _part(path: tuple, variable: nnx.Variable) -> str:
    if isinstance(variable, LoRAParam):
        return "adapters"
    return str(path[1]) if path[0] == MODEL else str(path[0])


def _counts(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({size / 1e6:,.2f} M)" for name, size in sizes.items())


def is_below(name: str, prefix: str) -> bool:
    """Whether a dotted name is `prefix` or begins with it."""
    return not prefix or name == prefix or name.startswith(prefix + ".")


def check_prefixes(field: str, prefixes: Iterable[str], names: list[str]) -> None:
    """Refuses prefixes that fit none of the names.

    Raises:
      ConfigError: which one, the nearest name, and the names on its level.
    """
    for prefix in prefixes:
        if any(is_below(name, prefix) for name in names):
            continue
        known = {".".join(n.split(".")[: i + 1]) for n in names for i in range(n.count(".") + 1)}
        parent = prefix
        while parent and parent not in known:
            parent = parent.rpartition(".")[0]
        depth = parent.count(".") + 1 if parent else 0
        below = [n for n in known if n.count(".") == depth and is_below(n, parent)]
        raise ConfigError(
            f"run: {field}: {prefix!r} fits no parameter.{did_you_mean(prefix, sorted(known))} "
            f"{parent or 'The model'} has {', '.join(sorted(below))}."
        )

"""A training state as the named trees that are kept of it."""

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from mres_jax.models.registry import ADAPTERS
from mres_jax.nn import LoRAParam
from mres_jax.training.learner import TrainState


def split_trees(state: TrainState) -> dict[str, Any]:
    """The model apart from all that only training needs, so that it can be read alone."""
    flat: dict[str, list[Any]] = {"model": [], ADAPTERS: [], "heads": []}
    for path, x in (*nnx.to_flat_state(state.params), *nnx.to_flat_state(state.frozen)):
        if path[0] != "model":
            flat["heads"].append((path, x))
        else:
            flat[ADAPTERS if isinstance(x, LoRAParam) else "model"].append((path[1:], x))
    trees = {name: nnx.from_flat_state(leaves) for name, leaves in flat.items() if leaves}
    return trees | {
        "training": {"step": state.step, "opt_state": state.opt_state},
        "skipped": {"skipped": state.skipped, "skipped_in_row": state.skipped_in_row},
    }


def fill_state(state: TrainState, trees: Mapping[str, Any]) -> TrainState:
    """`state` with the parameters of `trees`, in its own types and on its own devices."""
    read: dict[Any, Any] = {}
    for name, tree in trees.items():
        if name not in ("training", "skipped"):
            prefix = () if name == "heads" else ("model",)
            read |= {(*prefix, *path): x.get_value() for path, x in nnx.to_flat_state(tree)}

    def fill(part: Any) -> Any:
        flat = nnx.to_flat_state(part)
        return nnx.from_flat_state(
            [(p, x.replace(_like(read[p], x.get_value())) if p in read else x) for p, x in flat]
        )

    return state._replace(params=fill(state.params), frozen=fill(state.frozen))


def _like(value: Any, old: Any) -> Any:
    value = value.astype(old.dtype)
    return value if len(old.devices()) == 1 else jax.device_put(value, old.sharding)


def bind(state: TrainState) -> TrainState:
    """`state` with every array bound to its devices, as some that were read are.

    A step returns all of them bound if one is: after a mixture, the second would compile again.
    """
    return jax.tree.map(lambda x: jax.device_put(x, x.sharding), state)

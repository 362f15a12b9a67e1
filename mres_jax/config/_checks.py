"""What the dataclasses of a run file check about their values."""

import math
from collections.abc import Mapping
from typing import Any

from mres_jax.errors import ConfigError


def require(ok: bool, owner: str, message: str) -> None:
    """Raises `ConfigError` with the owner's name unless ok."""
    if not ok:
        raise ConfigError(f"{owner}: {message}")


def check_weights(owner: str, name: str, weights: Mapping[Any, float]) -> None:
    """Weights of a mixture: at least one, finite, none negative, not all zero."""
    values = list(weights.values())
    require(bool(values), owner, f"{name} is empty; give at least one entry with its weight.")
    for key, value in weights.items():
        ok = isinstance(value, int | float) and math.isfinite(value) and value >= 0
        require(ok, owner, f"{name}[{key!r}]={value!r} is no weight; give a finite number >= 0.")
    require(sum(values) > 0, owner, f"{name}: all weights are 0; one must be above.")

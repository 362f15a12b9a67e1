"""Pytrees as arrays by dotted name, and back."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


def leaves_by_name(tree: Any) -> dict[str, Any]:
    """Arrays of a pytree by dotted name; random keys as their words."""
    leaves = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_variable)[0]:
        name = ".".join(_entry(entry) for entry in path) or "value"
        assert name not in leaves, name
        leaves[name] = _array(leaf.get_value() if _is_variable(leaf) else leaf)
    return leaves


def _array(leaf: Any) -> Any:
    if not hasattr(leaf, "dtype"):
        return jnp.asarray(leaf)
    if not _is_key(leaf):
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.eval_shape(jax.random.key_data, leaf)
    return jax.random.key_data(leaf)


def rebuild(tree: Any, loaded: Mapping[str, Any]) -> Any:
    """`tree` with the arrays that stand under its names in `loaded`."""
    old, treedef = jax.tree_util.tree_flatten(tree, is_leaf=_is_variable)
    new = []
    for target, name in zip(old, leaves_by_name(tree), strict=True):
        value = loaded[name]
        leaf = target.get_value() if _is_variable(target) else target
        if _is_key(leaf):
            value = jax.random.wrap_key_data(value, impl=_key_impl(leaf))
        new.append(target.replace(value) if _is_variable(target) else value)
    return jax.tree_util.tree_unflatten(treedef, new)


def _key_impl(leaf: Any) -> str:
    match = re.fullmatch(r"key<(\w+)>", str(leaf.dtype))
    assert match is not None, leaf.dtype
    return {"fry": "threefry2x32", "rbg": "rbg", "urbg": "unsafe_rbg"}[match[1]]


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _is_variable(leaf: Any) -> bool:
    return isinstance(leaf, nnx.Variable)


def _entry(entry: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)


def as_struct(leaf: Any) -> jax.ShapeDtypeStruct:
    """Shape, dtype and place of an array; the first device where it names none."""
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

"""Shapes in annotations. Without jaxtyping, which only reads them, they stay unread."""

from typing import TYPE_CHECKING, Any

from jax import Array as Array

if TYPE_CHECKING:
    from jaxtyping import (
        Bool as Bool,
        Float as Float,
        Float32 as Float32,
        Int as Int,
        Int32 as Int32,
    )
else:
    try:
        from jaxtyping import Bool, Float, Float32, Int, Int32
    except ModuleNotFoundError:

        class _Unread:
            def __class_getitem__(cls, item: Any) -> Any:
                return Any

        Bool = Float = Float32 = Int = Int32 = _Unread

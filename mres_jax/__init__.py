"""Vision-language models that decide how many pixels to look at.

    model = mres_jax.load("path/to/model")
    answer = model.answer([image], "What is the total?", policy="budget:256")

The rooms are `mres_jax.data`, `resolution`, `models`, `inference`, `training` and `evaluation`; see
docs/architecture.md. Importing this package starts nothing: `load` brings jax when it is asked for.
"""

import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mres_jax.inference import load as load

__version__: str


def __getattr__(name: str) -> Any:
    if name == "load":
        from mres_jax.inference import load

        return load
    if name == "__version__":
        return importlib.metadata.version("mres-jax")
    raise AttributeError(f"module 'mres_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), "__version__", "load"]

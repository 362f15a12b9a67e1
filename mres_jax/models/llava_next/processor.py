"""What the host side must know of a LLaVA-NeXT: its tiles."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from mres_jax.data.spec import ProcessorSpec, TileRule
from mres_jax.geometry import Size
from mres_jax.models.llava import processor as llava
from mres_jax.models.llava_next.config import LlavaNextConfig


def make_spec(
    config: LlavaNextConfig,
    token_id: Callable[[str], int],
    *,
    preprocessor: Mapping[str, Any] | None = None,
) -> ProcessorSpec:
    """Returns the processor's description; `preprocessor` says no more than the configuration.

    Raises:
      CheckpointError: a processor that makes other pixels than we do.
    """
    canvases = tuple(Size(*pair) for pair in config.image_grid_pinpoints)
    side, pinpoints = config.vision_config.image_size, [list(canvas) for canvas in canvases]
    llava.check_squares(preprocessor or {}, side=side, same={"image_grid_pinpoints": pinpoints})
    return dataclasses.replace(
        llava.make_spec(config, token_id),
        accepts=frozenset({"image", "tile"}),
        tiles=TileRule(side=side, canvases=canvases),
        default_policy="tiles",
        background=(0, 0, 0),
        pad_first=False,
    )


def preprocessor_to_hf(spec: ProcessorSpec) -> dict[str, Any]:
    """Contents of a `preprocessor_config.json` with which `transformers` makes the same tiles."""
    assert spec.tiles is not None
    content = llava.preprocessor_to_hf(spec)
    return content | {
        "image_processor_type": "LlavaNextImageProcessor",
        "processor_class": "LlavaNextProcessor",
        "do_pad": True,
        "image_grid_pinpoints": [list(canvas) for canvas in spec.tiles.canvases],
    }

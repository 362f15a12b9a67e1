"""Two passes over one picture: a coarse look finds a window, a second one answers from it.

Reference:
  Lee et al., 2025, "A Training-Free, Task-Agnostic Framework for Enhancing MLLM Performance on
  High-Resolution Images" (ECP), arXiv:2507.10202.
"""

from mres_jax.resolution.zoom.places import (
    Place as Place,
    Places as Places,
    find_places as find_places,
)
from mres_jax.resolution.zoom.policies import Window as Window, Zoom as Zoom
from mres_jax.resolution.zoom.prompts import (
    ZoomPrompts as ZoomPrompts,
    load_prompts as load_prompts,
)
from mres_jax.resolution.zoom.windows import (
    window_around as window_around,
    window_size as window_size,
)

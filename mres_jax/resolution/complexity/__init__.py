"""How much there is to see in a picture, as one number; host side, numpy only."""

from mres_jax.resolution.complexity.many import measure_images as measure_images
from mres_jax.resolution.complexity.mdl import mdl_complexity as mdl_complexity
from mres_jax.resolution.complexity.measures import (
    COMPLEXITIES as COMPLEXITIES,
    compressed_share as compressed_share,
    find_complexity as find_complexity,
    histogram_entropy as histogram_entropy,
    mean_gradient as mean_gradient,
)

"""Models by name and by directory: the window of this room for everybody above it."""

from mres_jax.models._detect import (
    Kind as Kind,
    checkpoint_directory as checkpoint_directory,
    detect as detect,
)
from mres_jax.models._families import (
    FAMILIES as FAMILIES,
    Family as Family,
    family_named as family_named,
    family_of as family_of,
)
from mres_jax.models._loading import LoadedModel as LoadedModel, load_model as load_model

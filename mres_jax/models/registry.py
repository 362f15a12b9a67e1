"""Models by name and by directory: the window of this room for everybody above it."""

from mres_jax.models._description import (
    GENERATION as GENERATION,
    Description as Description,
    Processor as Processor,
    describe as describe,
    load_config as load_config,
    load_processor as load_processor,
)
from mres_jax.models._detect import (
    Kind as Kind,
    checkpoint_directory as checkpoint_directory,
    detect as detect,
)
from mres_jax.models._export import (
    convert as convert,
    export_hf as export_hf,
    save_model as save_model,
)
from mres_jax.models._families import (
    FAMILIES as FAMILIES,
    Family as Family,
    family_named as family_named,
    family_of as family_of,
)
from mres_jax.models._hub import resolve as resolve, shipped_directory as shipped_directory
from mres_jax.models._loading import (
    ADAPTERS as ADAPTERS,
    LoadedModel as LoadedModel,
    load_model as load_model,
)
from mres_jax.models._parts import load_part as load_part
from mres_jax.models.adapters import (
    export_adapter as export_adapter,
    load_adapter as load_adapter,
    save_adapter as save_adapter,
)
